"""The mirror in W&B: nothing depends on it, and no error of it ends a run."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


@contextmanager
def mirror(
    folder: Path, run_id: str, group: str, settings: dict[str, Any], mode: str
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that logs a row to the W&B run of this id, and finish the run at the end.

    Runs that differ by their seed alone share `group`. After a first error of W&B, or in mode `disabled`,
    rows go nowhere.
    """
    if mode == "disabled":
        yield lambda row: None
        return
    run = _guarded(lambda: _start(folder, run_id, group, settings, mode))
    alive = run is not None

    def log(row: dict[str, Any]) -> None:
        nonlocal alive
        if alive:
            alive = _guarded(lambda: (run.log(row, step=int(row["step"])), True)[1]) is True

    try:
        yield log
    finally:
        if run is not None:
            _guarded(run.finish)


def _start(folder: Path, run_id: str, group: str, settings: dict[str, Any], mode: str) -> Any:
    import wandb  # heavy, and not needed where W&B is disabled

    os.environ.setdefault("WANDB_SILENT", "true")
    return wandb.init(
        project="routerbench",
        id=run_id,
        name=run_id,
        group=group,
        job_type="train",
        tags=[settings["data"]["name"], settings["model"]["name"], settings["router"]["name"]],
        config=settings,
        dir=folder.absolute(),  # W&B's own process may have another working folder
        mode=mode,  # pyright: ignore[reportArgumentType]  checked with the configuration
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(console="off", x_disable_stats=True),
    )


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        logger.warning("W&B: %s: %s; the run goes on, and its record is whole", type(error).__name__, error)
        return None
