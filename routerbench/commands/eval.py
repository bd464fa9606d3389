"""`routerbench eval`: what trained models do when they are evaluated otherwise."""

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from routerbench.evaluations import options
from routerbench.refusal import refuse

if TYPE_CHECKING:
    from rich.console import Console

    from routerbench.evaluations.run import Entry
    from routerbench.load import FinishedRun


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser("eval", help="trained models at other capacities, batches, routers, images")
    options.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure what is not in the records yet; 2 where any run was refused, whatever became of the others."""
    asked_for = options.checked(arguments)
    import torch

    from routerbench.evaluations.show import console_for

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    console = console_for(arguments.json)
    results = list(_evaluated(arguments, asked_for, console))
    if arguments.json:
        print(json.dumps({"runs": results}, indent=1))
    return 2 if any(result["refused"] for result in results) else 0


def _evaluated(
    arguments: argparse.Namespace, asked_for: options.Options, console: "Console"
) -> Iterator[dict[str, Any]]:
    """What became of each run: first of those that cannot be opened, then of the others."""
    from routerbench.evaluations.measurement import Asked
    from routerbench.evaluations.settings import eval_settings
    from routerbench.evaluations.show import print_count, print_tables

    settings = eval_settings(asked_for.settings)
    opened, refused = _opened(arguments, asked_for)
    yield from refused
    done = []
    for finished in opened:
        others = tuple(other for other in opened if other is not finished)
        asked = Asked(**asked_for.asked, others=others, settings=settings)
        entries, line = _of_run(finished, asked_for.studies, asked, arguments.again, console)
        print_count(finished.run_id, entries, console)
        done.append((finished, entries))
        yield _as_json(finished, entries, line)
    for finished, entries in [] if arguments.json else done:
        print_tables(finished.run_id, entries, console)


def _opened(
    arguments: argparse.Namespace, asked_for: options.Options
) -> "tuple[list[FinishedRun], list[dict[str, Any]]]":
    """The runs that can be asked, and the refusals of the others."""
    from routerbench.load import open_run

    opened, refused = [], []
    for folder in asked_for.folders:
        try:
            opened.append(
                open_run(
                    folder,
                    weights=arguments.weights,
                    device=arguments.device,
                    data_path=arguments.data_path,
                    batch_size=arguments.batch_size,
                )
            )
        except (ValueError, OSError) as error:
            refuse(error)
            refused.append({"folder": str(folder), "refused": str(error)})
    return opened, refused


def _of_run(
    run: "FinishedRun", studies: Sequence[str], asked: Any, again: bool, console: "Console"
) -> "tuple[list[Entry], str | None]":
    """The entries of one run, and why there are no more."""
    from routerbench.evaluations.run import evaluate
    from routerbench.evaluations.show import print_entry

    entries = []
    try:
        for entry in evaluate(run, studies, asked, again):
            entries.append(entry)
            if entry.measured:
                print_entry(run.run_id, entry, console)
    except (ValueError, OSError) as error:
        refuse(f"{run.run_id}: {error}")
        return entries, str(error)
    return entries, None


def _as_json(run: "FinishedRun", entries: "Sequence[Entry]", line: str | None) -> dict[str, Any]:
    evaluations: dict[str, dict[str, Any]] = {}
    for entry in entries:
        evaluations.setdefault(entry.study, {})[entry.mode] = entry.result
    return {
        "run_id": run.run_id,
        "folder": str(run.folder),
        "weights": run.weights,
        "measured": sum(entry.measured for entry in entries),
        "refused": line,
        "evaluations": evaluations,
    }
