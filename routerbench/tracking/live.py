"""The mirror of a run while it trains."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from routerbench.tracking.content import digest_of, log_rows, rows_of, summary_of
from routerbench.tracking.files import publish
from routerbench.tracking.start import start

logger = logging.getLogger(__name__)


class Mirror:
    """A W&B run that has the rows of `metrics.jsonl`; after its first error nothing goes there."""

    def __init__(
        self, folder: Path, begin: Callable[[], Any] | None, close: Callable[[Any, Path, Any], None]
    ) -> None:
        self._folder, self._begin, self._close = folder, begin, close
        self._run: Any = None
        self._held: list[dict[str, Any]] = []

    def log(self, row: dict[str, Any]) -> None:
        """Log a row that has just been added to `metrics.jsonl`.

        The first one begins the W&B run, with all rows that stand there, and so does one after the file was
        cut back to a checkpoint. The rows of a step go there once a row of the next one comes: W&B takes
        nothing more in of a step that it has, and a run may be interrupted between its rows.
        """
        cut_back = self._held and row["step"] < self._held[-1]["step"]
        self._tell(self._replay if self._run is None or cut_back else partial(self._take, row))

    def keep(self, record: dict[str, Any]) -> None:
        """Put the record that stands in the folder into the W&B run, with the rows that are not there yet."""
        if self._run is None:
            self._tell(self._replay)
        self._tell(partial(self._keep, record))

    def finish(self) -> None:
        """End the W&B run, if there is one."""
        run, self._run = self._run, None
        if run is not None:
            _guarded(run.finish)

    def _replay(self) -> None:
        assert self._begin is not None
        if self._run is not None:
            self._run.finish()
        # What an earlier start left, or W&B's own `wandb sync` would find the run twice.
        shutil.rmtree(self._folder / "wandb", ignore_errors=True)
        self._run, self._held = self._begin(), []
        for row in rows_of(self._folder):
            self._take(row)

    def _take(self, row: dict[str, Any]) -> None:
        if self._held and row["step"] != self._held[-1]["step"]:
            log_rows(self._run, self._held)
            self._held = []
        self._held.append(row)

    def _keep(self, record: dict[str, Any]) -> None:
        log_rows(self._run, self._held)
        self._close(self._run, self._folder, record)

    def _tell(self, call: Callable[[], None]) -> None:
        if self._begin is not None and not _guarded(call):
            self._begin = None


@contextmanager
def mirror(folder: Path, run_id: str, group: str, settings: dict[str, Any], mode: str) -> Iterator[Mirror]:
    """Give the mirror of the run of this id, and finish it at the end; in mode `disabled` it goes nowhere.

    Nothing begins before there is a row or a record: until then a run may go back to its last checkpoint.
    Runs that differ by their seed alone share `group`.
    """
    begin = partial(start, folder, run_id, group, settings, mode)
    mirrored = Mirror(
        folder, None if mode == "disabled" else begin, _publish if mode == "online" else _summarise
    )
    try:
        yield mirrored
    finally:
        mirrored.finish()


def _publish(run: Any, folder: Path, record: dict[str, Any]) -> None:
    publish(run, folder, record, digest_of(folder))


def _summarise(run: Any, folder: Path, record: dict[str, Any]) -> None:
    """Offline nothing goes out: W&B would keep copies of the files in the user's home until it does."""
    run.summary.update(summary_of(record))


def _guarded(call: Callable[[], None]) -> bool:
    """Whether the call succeeded; if not, that is said, and the run goes on."""
    try:
        call()
    except Exception as error:
        logger.warning("W&B: %s: %s; the run goes on, and its record is whole", type(error).__name__, error)
        return False
    return True
