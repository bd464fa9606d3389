"""Where runs come from: a results folder, the mirror in W&B, or both; and which of them are asked for."""

from collections.abc import Sequence
from typing import Any

from routerbench.printable import printable, some
from routerbench.report.options import Options
from routerbench.report.runs.run import Found, Run, in_order, read_runs
from routerbench.report.runs.select import of_sweep, selected
from routerbench.report.runs.wandb_source import read_mirrored


def read(options: Options) -> Found:
    """The chosen runs of all sources, with what is to be said of them.

    Raises ValueError where there is none, and for a source that cannot be read.
    """
    local = Found([]) if options.results is None else read_runs(options.results)
    mirrored = Found([]) if options.source is None else read_mirrored(options.source)
    runs = in_order([*local.runs, *_other_than(mirrored.runs, local.runs)])
    if not runs:
        raise ValueError(printable(_nothing_found(options, Found([], local.damaged, mirrored.remarks))))
    if options.sweep is not None:
        runs = of_sweep(runs, options.sweep)
    runs = selected(runs, options.where)
    of_sources = [*mirrored.remarks, *_contradictions(mirrored.runs, local.runs)]
    return Found(runs, local.damaged, [*of_sources, *_without_number(runs)])


def _other_than(mirrored: Sequence[Run], local: Sequence[Run]) -> list[Run]:
    """The runs of the mirror that are in no folder: what stands there is the truth."""
    ids = {run["run_id"] for run in local}
    return [run for run in mirrored if run["run_id"] not in ids]


def _contradictions(mirrored: Sequence[Run], local: Sequence[Run]) -> list[str]:
    told = {run["run_id"]: _told(run) for run in mirrored}
    ids = [run["run_id"] for run in local if told.get(run["run_id"], _told(run)) != _told(run)]
    text = "W&B has another status or other metrics, and the record of the folder counts: {}"
    return [text.format(some(ids))] if ids else []


def _told(run: Run) -> dict[str, Any]:
    return {path: run[path] for path in run if path == "status" or path.startswith("metrics.")}


def _without_number(runs: Sequence[Run]) -> list[str]:
    """What is no number in some runs, as whose metric or cost it stands there."""
    ids: dict[str, list[str]] = {}
    for run in runs:
        for path in run.get("no_numbers", ()):
            ids.setdefault(path, []).append(run["run_id"])
    return [f"Taken as missing, as it is no number: {path} of {some(ids[path])}" for path in sorted(ids)]


def _nothing_found(options: Options, found: Found) -> str:
    if options.results is None:
        beside = "".join(f"; {remark}" for remark in found.remarks)
        return f"--source={options.source} holds no finished run{beside}"
    unread = f"; cannot be read: {some(found.damaged)}" if found.damaged else ""
    return (
        f"results={str(options.results)!r} holds no finished run: "
        f"give the folder that holds runs/<run_id>/record.json{unread}"
    )
