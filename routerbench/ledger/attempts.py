"""Attempts: every try to run a cell is a numbered file, and the highest number owns the run.

To take over from a dead owner is to make the next number, which only one process can. An owner that was
suspended meanwhile finds that higher number, and leaves.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from routerbench.ledger import sighting
from routerbench.ledger.owner import packed, this_process
from routerbench.ledger.sighting import Sighting
from routerbench.records import writing

KEPT = 50  # attempts of a run, which show that it was trained by one process at a time

_held: set[int] = set()  # descriptors of the attempts of this process


class RunningError(Exception):
    """Another process runs the cell; the text says which, and when it was last heard of."""


class LostError(Exception):
    """The run belongs to another process by now: nothing may be written for it any more."""


class Attempt:
    """The own attempt of this process, which owns the run until `end`, or until another takes over."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Sign the file, which was just made; raises UnwritableError, without it, where the disk is full."""
        self._path, self._descriptor = path, descriptor
        try:
            self._owner = this_process(_lock(descriptor))
            with writing(path):
                os.pwrite(descriptor, packed(self._owner), 0)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        _held.add(descriptor)
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raise LostError where this attempt is not the latest any more: before anything is written.

        Raises UnwritableError where that cannot be told.
        """
        with writing(self._path):
            paths = _paths(self._path.parent)
        if not paths or paths[-1] != self._path:
            taken = sighting.sighting(paths[-1]) if paths else None
            by = f"by {taken.owner}" if taken and taken.owner else "with its folder"
            raise LostError(f"the run was taken from {self._owner} {by}")

    def end(self, reason: str | None) -> None:
        """Give the run back; the reason is noted if the disk takes it."""
        self._over.set()
        self._heart.join()
        with suppress(OSError):
            os.pwrite(self._descriptor, packed(self._owner.at_its_end(reason)), 0)
        _held.remove(self._descriptor)
        os.close(self._descriptor)

    def _beat(self) -> None:
        while not self._over.wait(sighting.HEARTBEAT):
            with suppress(OSError):  # of a disk that comes back, or does not, which `check` finds
                os.utime(self._descriptor)


@contextmanager
def claimed(folder: Path) -> Iterator[Attempt]:
    """Own the run of this folder; raises RunningError while another process does, and UnwritableError.

    May watch for two heartbeats whether an owner on another host is dead. An error that ends the block is
    the reason of the end.
    """
    attempt = _begin(folder / "attempts")
    reason: str | None = None
    try:
        yield attempt
    except BaseException as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise
    finally:
        attempt.end(reason)


def refuse_running(folder: Path) -> None:
    """Raise RunningError where a process seems to run what stands in this folder; waits for nothing."""
    found = latest(folder)
    if found is not None and found.is_likely_alive():
        raise RunningError(f"is run by {found}")


def latest(folder: Path) -> Sighting | None:
    """The latest attempt to run what stands in this folder; None where there was none."""
    paths = _paths(folder / "attempts")
    return sighting.sighting(paths[-1]) if paths else None


def _begin(attempts: Path) -> Attempt:
    with writing(attempts.parent):
        attempts.mkdir(parents=True, exist_ok=True)
    while True:
        earlier = latest(attempts.parent)
        if earlier is not None and not earlier.is_dead():  # watches, where that must be seen
            raise RunningError(f"is run by {earlier}")
        path = attempts / f"{1 if earlier is None else int(earlier.path.stem) + 1:04}.json"
        descriptor = _made(path)
        if descriptor is None:
            continue
        attempt = Attempt(path, descriptor)
        try:
            attempt.check()
        except LostError as lost:
            attempt.end(str(lost))
            continue
        for old in _paths(attempts)[:-KEPT]:
            old.unlink(missing_ok=True)
        return attempt


def _made(path: Path) -> int | None:
    """The new file, open; None where another process was faster."""
    with writing(path):
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None


def _paths(attempts: Path) -> list[Path]:
    """Of all attempts, in their order."""
    try:
        names = os.listdir(attempts)
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal())
    return [attempts / f"{number:04}.json" for number in numbers]


def _lock(descriptor: int) -> bool:
    """Lock the file for as long as this process lives; False on a file system that has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _let_go() -> None:
    """Close what was inherited: a lock lasts until each process that has its file open is gone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
