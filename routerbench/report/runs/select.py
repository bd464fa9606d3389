"""The runs that a report is asked about, of all that were found."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from routerbench.checks import did_you_mean
from routerbench.config import conf_dir
from routerbench.printable import printable, some
from routerbench.report.boards.cells import OF_MOE, belongs, is_dense
from routerbench.report.runs.run import Run, key_of, paths_of, plain, text_of


def selected(runs: Sequence[Run], where: Mapping[str, Sequence[str]]) -> list[Run]:
    """The runs that have one of the wanted values of every setting; a dense run fits any setting of the MoE.

    Raises ValueError for an unknown setting, a value that no run has, and where no run is left.
    """
    wanted = {path_of(key, runs): (key, values) for key, values in where.items()}
    for path, (key, values) in wanted.items():
        _check_values(path, key, values, runs)
    left = [run for run in runs if all(_fits(run, path, values) for path, (_, values) in wanted.items())]
    if not left:
        words = " ".join(f"--where {key}={','.join(values)}" for key, values in where.items())
        raise ValueError(f"{words} leaves none of {len(runs)} runs: leave out one of them")
    return left


def of_sweep(runs: Sequence[Run], name: str) -> list[Run]:
    """The runs that a sweep composes to, and those whose recorded command names it.

    Raises ValueError for an unknown sweep, and for one of which no run is there.
    """
    named = [run for run in runs if f"+sweep={name}" in _words(run.get("provenance.command", ""))]
    known = sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))
    if name not in known and not named:
        raise ValueError(f"--sweep={name} is not one of: {', '.join(known)}{did_you_mean(name, known)}")
    ids = {run["run_id"] for run in named} | (_composed(name) if name in known else set())
    left = [run for run in runs if run["run_id"] in ids]
    if not left:
        raise ValueError(
            f"--sweep={name} has none of {len(runs)} runs: routerbench train -m +sweep={name} first"
        )
    return left


def path_of(key: str, runs: Iterable[Run]) -> str:
    """Where in a run stands what is called so on the command line: `router` is its name, as for training.

    Raises ValueError for what no run has.
    """
    paths = paths_of(runs)
    for path in (key if key == "status" else "", f"config.{key}.name", f"config.{key}"):
        if path in paths:
            return path
    names = [path.removeprefix("config.") for path in paths if path.startswith("config.")]
    top = dict.fromkeys(["status", *(name.partition(".")[0] for name in names)])
    text = f"--where {key} is no setting of these runs{did_you_mean(key, [*top, *names])}; settings are: "
    raise ValueError(printable(text + some(list(top))))


def _check_values(path: str, key: str, values: Sequence[str], runs: Sequence[Run]) -> None:
    there = {text_of(run.get(path)): run.get(path) for run in runs}
    for value in values:
        if not any(_is(other, value) for other in there.values()):
            names = sorted(there)
            text = f"--where {key}={value} is what no run has: there is {some(names)}"
            raise ValueError(printable(text + did_you_mean(value, names)))


def _fits(run: Run, path: str, values: Sequence[str]) -> bool:
    # Else a filter would part the rows from the twin that they are compared with.
    name = path.removeprefix("config.")
    if is_dense(run) and name != "router.name" and belongs(name, OF_MOE):
        return True
    return any(_is(run.get(path), value) for value in values)


def _is(value: Any, text: str) -> bool:
    """Whether the setting is what was typed, in whichever way: 0.001 or 1e-3, [3,5] or [3, 5]."""
    if text_of(value) == text:
        return True
    try:
        typed = json.loads(text)
    except ValueError:
        return False
    return key_of({"": plain(typed)}) == key_of({"": value})


def _words(command: Any) -> list[str]:
    try:
        return shlex.split(str(command))
    except ValueError:  # somebody's own, with a quote that does not end
        return str(command).split()


def _composed(name: str) -> set[str]:
    """The runs of a sweep as it stands now."""
    from routerbench.compose import (
        compose_sweep,
    )  # Hydra takes a second, for which other reports need not wait

    return {cell.run_id for cell in compose_sweep([f"+sweep={name}"], None, multirun=True).cells}
