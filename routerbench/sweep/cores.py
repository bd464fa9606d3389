"""How the processes of a launcher share the cores."""

from collections.abc import Sequence
from typing import Any

from routerbench.compose import Cell
from routerbench.sweep.launchers import JOBLIB, num_cores
from routerbench.sweep.torchrun import num_processes


def jobs_at_once(launcher: Any) -> int:
    """How many cells are trained at a time on the cores of this machine."""
    if not launcher._target_.startswith(JOBLIB):
        return 1
    return launcher.n_jobs if launcher.n_jobs >= 0 else max(num_cores() + 1 + launcher.n_jobs, 1)


def check_cores(launcher: Any, cells: Sequence[Cell]) -> None:
    """Raise ValueError where joblib's processes together have more threads than this one may use cores.

    Where runtime.threads is null, joblib gives each process its share of the cores.
    """
    if not launcher._target_.startswith(JOBLIB):
        return
    if launcher.n_jobs == 0:
        raise ValueError(
            "hydra.launcher.n_jobs=0 starts nothing: give a number of processes, or -1: one a core"
        )
    cores, jobs = num_cores(), jobs_at_once(launcher)
    for cell in cells:
        threads, ranks = cell.config.runtime.threads or 1, num_processes(cell.config)
        if jobs * threads * ranks > cores:
            of_many = f", and {ranks} processes a job" if ranks > 1 else ""
            raise ValueError(
                f"hydra.launcher.n_jobs={launcher.n_jobs} with runtime.threads={threads}{of_many} is "
                f"{jobs * threads * ranks} threads at once for {cores} cores: give less of one of them"
            )
