"""Hydra's launchers: those that are extras of this package, and where their jobs are."""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing import forkserver
from typing import Any

from routerbench.sweep.torchrun import under_torchrun

BASIC = "hydra._internal.core_plugins.basic_launcher."
JOBLIB = "hydra_plugins.hydra_joblib_launcher."
PLUGINS = {
    "joblib": "hydra_joblib_launcher",
    "submitit": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
    "optuna": "hydra_optuna_sweeper",
}


def check_extras(overrides: Sequence[str]) -> None:
    """Raise ValueError for a launcher or sweeper that is asked for and not installed."""
    for word in overrides:
        group, _, name = word.partition("=")
        extra = name.partition("_")[0]
        if (
            group in ("hydra/launcher", "hydra/sweeper")
            and extra in PLUGINS
            and not _is_there(PLUGINS[extra])
        ):
            raise ValueError(f"{word} is an extra that is not installed: pip install 'routerbench[{extra}]'")


def check_launcher(hydra: Any) -> None:
    """Raise ValueError for a launcher that would start what torchrun has started."""
    if under_torchrun() and not hydra.launcher._target_.startswith(BASIC):
        raise ValueError(
            f"hydra/launcher={hydra.runtime.choices['hydra/launcher']} is not for torchrun, for a "
            "rank never runs the sweep again: leave one of them out (parallel.* starts a torchrun by itself)"
        )


def ends_with_the_command(hydra: Any) -> bool:
    """Whether jobs are this command's own; those of a queue go on without it."""
    return hydra.launcher._target_.startswith((BASIC, JOBLIB))


def import_once(hydra: Any, jobs: int) -> None:
    """Have joblib's workers be copies of one process that has imported what a run needs.

    It starts beside the command, with its environment, in which each has its share of the cores.
    """
    if not hydra.launcher._target_.startswith(JOBLIB):
        return
    if sys.platform == "darwin":  # whose libraries bear no fork
        return
    from joblib.externals.loky.backend.context import set_start_method

    os.environ.setdefault("OMP_NUM_THREADS", str(max(num_cores() // max(jobs, 1), 1)))
    multiprocessing.set_forkserver_preload(["routerbench.experiment", "torch._dynamo"])
    forkserver.ensure_running()
    set_start_method("forkserver", force=True)


def num_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_there(plugin: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:  # there is no plugin at all
        return False
