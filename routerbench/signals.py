"""Signals by which a scheduler, a user or the parent of a job says that its time is over."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

EXIT_CODE = os.EX_TEMPFAIL  # 75: sysexits.h's "try again later", on which a scheduler can put a job back


class RequeueError(Exception):
    """A run ends before it is done, and goes on when it is started again."""


class KilledError(RequeueError):
    """A process that works for a run was killed: the run goes on from its latest checkpoint."""


class GivenBackError(Exception):
    """The handler that was installed before ours raised when the signal was passed on.

    Submitit's does for a job that it does not requeue.
    """


@dataclass
class Warned:
    """Whether somebody has asked to stop."""

    by: str | None = None
    """The name of the signal, or whose end it was."""


def asking_to_stop() -> set[signal.Signals]:
    """The signals that end a run in order, but for those that this process was told to ignore.

    Among them is that of submitit, which its environment names.
    """
    of_submitit = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
    asking = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, of_submitit}
    return {number for number in asking if signal.getsignal(number) != signal.SIG_IGN}


@contextmanager
def heeded() -> Iterator[Warned]:
    """Inside, the first signal that asks to stop is noted; the next one does what it did before.

    Afterwards a noted one is given to who heeded it before, if anybody did. Signals reach the main thread
    alone: in another one nothing is noted. Raises GivenBackError where that goes wrong.
    """
    warned, noted = Warned(), []
    before = {}

    def note(number: int, _frame: object) -> None:
        warned.by = signal.Signals(number).name
        noted.append(number)
        _restore(before)

    if threading.current_thread() is threading.main_thread():
        before |= {number: signal.signal(number, note) for number in asking_to_stop()}
    try:
        yield warned
    finally:
        _restore(before)
    for number in noted:
        if callable(before[number]) and before[number] is not signal.default_int_handler:
            _give_back(number)


def _give_back(number: int) -> None:
    try:
        signal.raise_signal(number)
    except Exception as error:
        raise GivenBackError(str(error)) from error


def _restore(handlers: dict[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
