"""`routerbench bench`: check everything, measure case by case, and show what came of it."""

import json
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from routerbench.bench.cases import Case, LayerCase, ModelCase, RouterCase, cases
from routerbench.bench.layers import Makers, autocast_to, layer_makers, router_makers
from routerbench.bench.measure import SEED, measure
from routerbench.bench.models import model_makers, sparse_model
from routerbench.bench.options import Options
from routerbench.bench.peers import Peer, read_peer
from routerbench.bench.results import SCHEMA, Record, Reference, read_references, read_results
from routerbench.bench.show import LEGEND, markdown, origin, print_table
from routerbench.bench.tables import case_table, overview
from routerbench.build import build_router, router_names
from routerbench.checks import check_one_of
from routerbench.moe.backends import BACKENDS
from routerbench.parts import choose_device
from routerbench.paste import pasted_file
from routerbench.provenance import provenance
from routerbench.records import write_text
from routerbench.timing import WARMUP_ROUNDS, clock


def bench(options: Options, command: str, console: Console) -> bool:
    """Measure, or read what was measured, and show it; whether every contestant went through.

    Raises ValueError for what cannot be had, before anything is measured.
    """
    references = [] if options.references is None else read_references(options.references)
    if options.paste is not None:
        pasted_file(options.paste, "", "benchmark")  # refused before it takes minutes
    if options.source is None:
        results = _measured(options, command, console)
    else:
        results = read_results(options.source)
        for record in results["cases"]:
            print_table(case_table(record), console)
    _show(results, references, options, console)
    return not any("failed" in record for case in results["cases"] for record in case["contestants"])


def _show(results: Record, references: list[Reference], options: Options, console: Console) -> None:
    tables = overview(results["cases"], references)
    for table in tables:
        print_table(table, console)
    console.print(Text(LEGEND, "dim"))
    console.print(Text(origin(results), "dim"))
    if options.paste is not None:
        write_text(
            options.paste.resolve(), pasted_file(options.paste, markdown(tables, results), "benchmark")
        )
    if options.plot is not None:
        from routerbench.bench.plot import draw

        draw(results["cases"], references, origin(results), options.plot)


def _measured(options: Options, command: str, console: Console) -> Record:
    device = choose_device(options.device or "auto", "device")
    threads = options.threads or (1 if device.type == "cpu" else torch.get_num_threads())
    torch.set_num_threads(threads)
    if device.index is not None and device.type == "cuda":  # without a number it is the one at hand
        torch.cuda.set_device(device)  # where events are recorded
    chosen = cases(options, _span_images(options))
    peers = [read_peer(name) for name in options.peer or ()]
    backends = options.backends
    for name in backends or ():
        check_one_of("backends", name, tuple(BACKENDS))
    for case in chosen:
        _check(case, peers, device)
    name, seconds_of = clock(device, threads)
    repeats = options.repeats or 11
    results: Record = {
        "schema": SCHEMA,
        "provenance": provenance(device) | {"command": command},
        "threads": threads,
        "clock": name,
        "repeats": repeats,
        "warmup_rounds": WARMUP_ROUNDS,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cases": [],
    }
    for case in chosen:
        torch.manual_seed(SEED)  # of the tokens, which are the same in every measurement
        makers = _makers(case, backends, peers, device)
        results["cases"].append(measure(case, makers, device, seconds_of, repeats))
        print_table(case_table(results["cases"][-1]), console)
        if options.json is not None:  # after every case: what is measured is not lost
            _write_json(options.json, results)
    return results


def _makers(case: Case, backends: tuple[str, ...] | None, peers: list[Peer], device: torch.device) -> Makers:
    if isinstance(case, LayerCase):
        return layer_makers(case, backends or tuple(BACKENDS), peers, device)
    if isinstance(case, RouterCase):
        return router_makers(case, device)
    return model_makers(case, backends, device)


def _span_images(options: Options) -> dict[str, bool]:
    """Of every router, whether a group may hold several images; ValueError for a name that is no router."""
    names = router_names()
    for name in options.routers or ():
        check_one_of("routers", name, names)
    return {name: build_router(name, width=1, num_experts=1).spans_images for name in names}


def _check(case: Case, peers: list[Peer], device: torch.device) -> None:
    """Raise ValueError for a case that cannot be, on tensors without memory, and for peers that break."""
    with torch.device("meta"):
        if isinstance(case, ModelCase):
            for placement in case.placements:
                sparse_model(case, placement, backend=None)
            return
        for name in case.routers if isinstance(case, RouterCase) else (case.router,):
            build_router(name, case.shape.width, case.shape.num_experts)
    if isinstance(case, LayerCase):
        for peer in peers:
            peer.check(case.shape, device, autocast_to(case.shape.precision, device))


def _write_json(path: Path, results: Record) -> None:
    write_text(path, json.dumps(results, indent=1) + "\n")
