"""`routerbench eval`: what trained models do when they are evaluated otherwise."""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerbench.commands.opening import add_opening, be_ready
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
    add_opening(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure what is not in the records yet; 2 where any run was refused, whatever became of the others."""
    asked_for = options.checked(arguments)
    from routerbench.evaluations.settings import eval_settings

    settings = eval_settings(asked_for.settings)
    refusals = be_ready(arguments, asked_for.folders)
    if refusals and not arguments.json:
        return max(map(refuse, refusals))
    from routerbench.evaluations.show import console_for

    console = console_for(arguments.json)
    results = list(_evaluated(arguments, asked_for, settings, console))
    if arguments.json:
        print(json.dumps({"runs": results}, indent=1))
    return 2 if any(result["refused"] for result in results) else 0


def _evaluated(
    arguments: argparse.Namespace, asked_for: options.Options, settings: Any, console: "Console"
) -> Iterator[dict[str, Any]]:
    """What became of each run, one after the other; at the end their tables."""
    from routerbench.evaluations.measurement import Asked
    from routerbench.evaluations.seeing.observed import FOLDER
    from routerbench.evaluations.show import print_count, print_tables

    asked = Asked(**asked_for.asked, settings=settings)
    done = []
    for finished, others in _opened(arguments, asked_for):
        if isinstance(finished, dict):
            yield finished
            continue
        asked_of_it = replace(asked, others=others)
        entries, line = _of_run(finished, asked_for.studies, asked_of_it, arguments.again, console)
        nothing = {} if line else _nothing(finished, asked_for.studies, entries, console)
        if line is None:
            print_count(finished.run_id, entries, console)
        done.append((finished.run_id, entries, str(finished.folder / FOLDER)))
        yield _as_json(finished, entries, line) | {"nothing": nothing}
    for run_id, entries, folder in [] if arguments.json else done:
        print_tables(run_id, entries, folder, console)


def _nothing(
    run: "FinishedRun", studies: Sequence[str], entries: "Sequence[Entry]", console: "Console"
) -> dict[str, str]:
    """The studies that asked nothing of a run, with the reason of each, which is said."""
    from routerbench.evaluations.show import print_nothing
    from routerbench.evaluations.unasked import why_nothing

    asked = {entry.study for entry in entries}
    reasons = {study: why_nothing(run, study) for study in studies if study not in asked}
    for study, reason in reasons.items():
        print_nothing(run.run_id, study, reason, console)
    return reasons


def _opened(
    arguments: argparse.Namespace, asked_for: options.Options
) -> "Iterator[tuple[FinishedRun | dict[str, Any], tuple[FinishedRun, ...]]]":
    """Each run, or its refusal, and where a study takes two its other seeds: these are in memory at once."""
    from routerbench.run_files import by_configuration

    if "routers" not in asked_for.studies:
        yield from ((_open(arguments, folder), ()) for folder in asked_for.folders)
        return
    for folders in by_configuration(asked_for.folders):
        yield from _together(arguments, folders)


def _together(
    arguments: argparse.Namespace, folders: Sequence[Path]
) -> "Iterator[tuple[FinishedRun | dict[str, Any], tuple[FinishedRun, ...]]]":
    opened = [_open(arguments, folder) for folder in folders]
    for one in opened:
        yield one, tuple(run for run in opened if run is not one and not isinstance(run, dict))


def _open(arguments: argparse.Namespace, folder: Path) -> "FinishedRun | dict[str, Any]":
    from routerbench.load import open_run

    try:
        return open_run(
            folder,
            weights=arguments.weights,
            device=arguments.device,
            data_path=arguments.data_path,
            batch_size=arguments.batch_size,
        )
    except (ValueError, OSError) as error:
        refuse(error)
        return {"folder": str(folder), "refused": str(error)}


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
