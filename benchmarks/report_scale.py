"""What `routerbench report` takes on many records: seconds and peak memory, on records that are made up.

    python benchmarks/report_scale.py [FOLDER]

Makes 10,025 records of the size that real ones have (200 cells of ten configurations and five seeds, and the
dense twins) below FOLDER, or below a folder that is taken away again, and reports on them in a process of its
own. Records that stand in FOLDER already are taken as they are.
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

POCKET = Path(__file__).parents[1] / "results" / "pocket" / "runs"
PLACEMENTS = ("last_2", "every_2", "last_half", "stage", "all")
NUM_EXPERTS = (4, 8, 16, 32)
CAPACITY_FACTORS = (1.0, 2.0)
EPOCHS = (5, 10, 20, 40, 80)
SEEDS = range(5)


def records() -> Iterator[dict[str, Any]]:
    """All records, one after the other."""
    generator = np.random.default_rng(0)
    templates = [json.loads(path.read_text()) for path in sorted(POCKET.glob("*-s0-*/record.json"))]
    dense = [record for record in templates if record["config"]["router"]["name"] == "dense"]
    sparse = [record for record in templates if record not in dense]
    top2 = next(r for r in sparse if r["config"]["router"]["name"] == "token_choice")
    router = {**top2["config"]["router"], "top_k": 2}
    sparse += [{**top2, "config": {**top2["config"], "router": router}}]
    sparse += [{**top2, "config": {**top2["config"], "router": {**router, "top_k": 4}}}]
    for epochs, template, seed in product(EPOCHS, dense, SEEDS):
        yield _record(template, generator, seed=seed, epochs=epochs)
    cells = product(PLACEMENTS, NUM_EXPERTS, CAPACITY_FACTORS, EPOCHS)
    for (placement, num_experts, factor, epochs), template, seed in product(cells, sparse, SEEDS):
        moe = {"placement": placement, "num_experts": num_experts, "capacity_factor": factor}
        yield _record(template, generator, seed=seed, epochs=epochs, **moe)


def _record(template: dict[str, Any], generator: np.random.Generator, **settings: Any) -> dict[str, Any]:
    metrics = dict(template["metrics"])
    shift = float(generator.normal(0, 0.005))
    metrics |= {name: metrics[name] + shift for name in ("test/top1", "test/balanced")}
    return {**template, "config": template["config"] | settings, "metrics": metrics}


def make(results: Path) -> int:
    """Write the records below the folder; how many there are."""
    for number, record in enumerate(records()):
        folder = results / "runs" / f"{number:05d}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({**record, "run_id": folder.name}, indent=1))
    return len(list(results.glob("runs/*")))


def measure(results: Path) -> None:
    """Report on the folder in a process of its own and say when the boards stood there, and when all did."""
    started = boards = perf_counter()
    command = [sys.executable, "-u", "-m", "routerbench", "report", "--results", str(results)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        for _ in process.stdout or ():
            boards = perf_counter()
    if process.returncode:
        raise SystemExit(process.returncode)
    seconds = perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN)
    files = ", ".join(
        f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in sorted(results.glob("*.*"))
    )
    print(f"boards in the terminal after {boards - started:.1f} s, all files after {seconds:.1f} s")
    print(f"{peak.ru_utime + peak.ru_stime:.1f} s of CPU, {peak.ru_maxrss / 1024:.0f} MiB")
    print(files)


def main(words: list[str]) -> None:
    """Make what is not there, and measure."""
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(*words) if words else Path(temporary)
        number = len(list(results.glob("runs/*"))) or make(results)
        print(f"{number} records")
        measure(results)


if __name__ == "__main__":
    main(sys.argv[1:])
