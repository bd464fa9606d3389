"""The mirror in W&B: nothing depends on it, and no error of it ends a run."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from routerbench.records import SCHEMA

logger = logging.getLogger(__name__)


class Mirror:
    """A run in W&B; after its first error, or without a run, nothing goes there."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, row: dict[str, Any]) -> None:
        """Log a row of metrics at its step."""
        self._tell(lambda run: run.log(row, step=int(row["step"])))

    def keep(self, record: dict[str, Any]) -> None:
        """Put a record into the summary, whole but for the settings, and its metrics by their names too."""
        # Whole, for rows that W&B writes after this change what stands there by name.
        rest = {name: part for name, part in record.items() if name != "config"}
        self._tell(
            lambda run: run.summary.update({**record["metrics"], "record": {"schema": SCHEMA, **rest}})
        )

    def _tell(self, call: Callable[[Any], Any]) -> None:
        run = self._run
        if run is not None and _guarded(lambda: (call(run), True)) is None:
            self._run = None


@contextmanager
def mirror(folder: Path, run_id: str, group: str, settings: dict[str, Any], mode: str) -> Iterator[Mirror]:
    """Give the W&B run of this id, and finish it at the end; in mode `disabled` one that goes nowhere.

    Runs that differ by their seed alone share `group`.
    """
    run = None
    if mode != "disabled":
        run = _guarded(lambda: _start(folder, run_id, group, settings, mode))
    try:
        yield Mirror(run)
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
