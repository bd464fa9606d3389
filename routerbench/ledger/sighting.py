"""Whether the owner of an attempt lives, told without trust in anybody's clock.

On its own system the lock of its file tells at once. Elsewhere a lock may not be seen, or outlive its host;
there only a heartbeat tells that stands still for as long as somebody watches it.
"""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from routerbench.ledger.owner import Owner, this_system, unpacked

HEARTBEAT = 10.0  # seconds between two
STALE = 60.0  # seconds after which a heartbeat is worth to be watched


@dataclass(frozen=True)
class Sighting:
    """What can be seen of an attempt at once."""

    path: Path
    owner: Owner | None
    """None where it is not known yet: the file has just been made."""
    lives: bool | None
    """None where only its heartbeat can tell."""
    heartbeat: int
    """When the file was last touched, in nanoseconds by the clock of the file system."""

    def heard_seconds(self) -> float:
        """For how long nothing was heard of it; negative where a clock was set back since."""
        return _now(self.path.parent) - self.heartbeat / 1e9

    def is_likely_alive(self) -> bool:
        """Whether it lives; as far as one can tell at once."""
        return abs(self.heard_seconds()) < STALE if self.lives is None else self.lives

    def is_dead(self) -> bool:
        """Whether it is surely gone; a heartbeat that seems late is watched for the time of two."""
        if self.lives is not None:
            return not self.lives
        return not self.is_likely_alive() and self._stands_still(2 * HEARTBEAT)

    def _stands_still(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(HEARTBEAT / 10)
            now = sighting(self.path)
            if now is None or now.heartbeat != self.heartbeat:
                return False
        return True

    def __str__(self) -> str:
        if self.owner is not None and self.owner.reason is not None and self.lives is False:
            return self.owner.reason
        who = self.owner or "a process that has not signed its attempt"
        if self.lives is False:
            return f"{who} is gone"
        heard = self.heard_seconds()
        return f"{who}, heard of {_spoken(max(heard, 0.0))} ago"


def sighting(path: Path) -> Sighting | None:
    """Look at an attempt; None for one that is not there."""
    try:
        with path.open("rb") as file:  # by which a network's file system asks its server
            locked = _is_locked(file)  # before what the owner may write at its end
            owner = unpacked(file.read())
            return Sighting(path, owner, _lives(owner, locked), os.fstat(file.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None


def _lives(owner: Owner | None, locked: bool | None) -> bool | None:
    if owner is None:
        return None
    if owner.ended is not None:
        return False
    return locked if owner.locked and owner.is_of(*this_system()) else None


def _is_locked(file: BinaryIO) -> bool | None:
    """Whether somebody holds the lock of the file; None where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _now(folder: Path) -> float:
    """The time by the clock that gives files their times; ours where nothing can be written."""
    try:
        with TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _spoken(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
