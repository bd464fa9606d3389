"""Signals by which a scheduler warns a run that its time is over."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

EXIT_CODE = os.EX_TEMPFAIL  # 75: sysexits.h's "try again later", on which a scheduler can put a job back


class RequeueError(Exception):
    """A scheduler asked to stop; the state of the run is kept."""


@dataclass
class Warned:
    """Whether a scheduler has asked to stop."""

    by: str | None = None
    """The name of the signal."""


@contextmanager
def heeded() -> Iterator[Warned]:
    """Inside, SIGTERM and SIGUSR1 are noted instead of ending the process; a second one ends it."""
    warned = Warned()

    def note(number: int, _frame: object) -> None:
        warned.by = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield warned
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
