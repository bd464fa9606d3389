"""From a sweep to what became of it."""

import os
import shlex
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routerbench.compose import Cell, Sweep
from routerbench.ledger.ledger import Standing
from routerbench.refusal import say
from routerbench.signals import EXIT_CODE, RequeueError
from routerbench.sweep.check import check_parts, check_paths, check_settings
from routerbench.sweep.choose import choose
from routerbench.sweep.cores import check_cores, jobs_at_once
from routerbench.sweep.job import Job
from routerbench.sweep.launch import Ended, ended_in_order, launch
from routerbench.sweep.launchers import check_launcher, ends_with_the_command, import_once
from routerbench.sweep.named import counts_line, exit_code, run_line
from routerbench.sweep.outcome import left_of, standings
from routerbench.sweep.stop import stop_of_the_outer_command, stop_of_this_command
from routerbench.sweep.torchrun import under_torchrun

EXIT_CODE_OF_CTRL_C = 130


def run_sweep(sweep: Sweep, words: list[str], overrides: list[str], config_dir: str | None) -> int:
    """Run the cells that are left, and say what became of all of them; gives back the exit code.

    Raises ValueError, before anything runs, for a cell that cannot be run.
    """
    with stop_of_this_command() as stop:
        heard = stop_of_the_outer_command() or (stop if ends_with_the_command(sweep.hydra.hydra) else None)
        try:
            with ended_in_order(stop):
                at_once = jobs_at_once(sweep.hydra.hydra.launcher)
                command = f"routerbench train {shlex.join(words)}"
                job = Job(_titles(sweep), command, config_dir, heard, at_once)
                if not sweep.cells:
                    each_could_be = _chosen(sweep, overrides, job)
                    code = _report(sweep.cells, standings(sweep.cells))
                    return code if each_could_be else 1
                return _run(sweep, job)
        except RequeueError as error:  # of ranks, of which perhaps another was warned
            say(f"{error}: the same command goes on from there")
            return EXIT_CODE
        except Ended as ended:
            say(f"stopped by {ended}: the same command goes on with what is not done")
            _report(sweep.cells, standings(sweep.cells))
            return EXIT_CODE_OF_CTRL_C if str(ended) == "SIGINT" else EXIT_CODE


def _run(sweep: Sweep, job: Job) -> int:
    found = standings(sweep.cells)
    left = left_of(sweep.cells, found)
    check_launcher(sweep.hydra.hydra)
    check_settings(sweep, sweep.cells)
    check_cores(sweep.hydra.hydra.launcher, left)
    if not left and not under_torchrun():
        return _report(sweep.cells, found)
    if not under_torchrun():  # before torch is imported; ranks say together what one of them has not
        check_paths(sweep, left)
    import_once(sweep.hydra.hydra, job.at_once)
    from routerbench.ranks import agreed, checked_by_all, joined

    runtime = sweep.cells[0].config.runtime
    with joined(runtime.timeout_seconds, runtime.device):
        names = agreed(lambda: {cell.run_id for cell in left})
        left = [cell for cell in sweep.cells if cell.run_id in names]
        if under_torchrun():
            checked_by_all(lambda: check_paths(sweep, left))
        checked_by_all(lambda: check_parts(sweep, left))
        each_could_be = _launched(sweep, left, job)
        code = agreed(lambda: _report(sweep.cells, standings(sweep.cells)))
        return code if each_could_be else 1


def _launched(sweep: Sweep, cells: Sequence[Cell], job: Job) -> bool:
    """Whether each cell could be run; what goes wrong in the launcher itself is said."""
    try:
        return launch(sweep, cells, job)
    except Exception as error:
        if under_torchrun():  # the other ranks wait for this one: nothing can be said together
            raise
        return _stopped(sweep, "hydra/launcher", error)


def _chosen(sweep: Sweep, overrides: list[str], job: Job) -> bool:
    """Whether each cell that was chosen could be run; what goes wrong in the sweeper itself is said."""
    import_once(sweep.hydra.hydra, job.at_once)
    try:
        return choose(sweep, overrides, job)
    except Exception as error:
        if not sweep.cells:  # it could not begin
            raise
        return _stopped(sweep, "hydra/sweeper", error)


def _stopped(sweep: Sweep, plugin: str, error: Exception) -> bool:
    traceback.print_exc()
    say(f"{plugin}={sweep.hydra.hydra.runtime.choices[plugin]} stopped: {error}")
    return False


def _report(cells: Sequence[Cell], found: Sequence[Standing]) -> int:
    """Say how the cells stand; gives back what their states have for exit code."""
    counts = Counter(standing.state for standing in found)
    not_done = [
        run_line(Path(cell.config.runtime.results), cell.run_id, standing)
        for cell, standing in zip(cells, found, strict=True)
        if standing.state != "done"
    ]
    if int(os.environ.get("RANK", "0")) == 0:
        print(counts_line(counts), *not_done, sep="\n", flush=True)
    return exit_code(counts)


def _titles(sweep: Sweep) -> dict[str, str]:
    total = len(sweep.cells)
    return {
        cell.run_id: f"[{number}/{total}] {cell.varied or _described(cell.settings)}"
        for number, cell in enumerate(sweep.cells, start=1)
    }


def _described(settings: dict[str, Any]) -> str:
    placement = "" if settings["router"]["name"] == "dense" else f" {settings['placement']}"
    return f"{settings['model']['name']} {settings['router']['name']}{placement} seed {settings['seed']}"
