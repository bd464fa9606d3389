"""Who tries to run a cell, as it stands in the file of an attempt."""

import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

ROOM = 4096  # bytes, taken when an attempt begins: its end can be noted on a full disk
LONGEST_REASON = 240  # characters, of which JSON makes twelve bytes each beyond the first plane of Unicode

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Owner:
    """A process, and what became of its attempt."""

    host: str
    boot: str
    """Of the system since it was started, the same in all of its containers; empty where there is none."""
    pid: int
    started: str
    locked: bool
    """Whether it could lock its file."""
    ended: str | None = None
    """None while it goes, and for ever where nobody could note it."""
    reason: str | None = None
    """Why it has ended without a record."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_of(self, host: str, boot: str) -> bool:
        """Whether it runs under that system, whose locks are known there."""
        return self.boot == boot if boot and self.boot else self.host == host

    def at_its_end(self, reason: str | None) -> "Owner":
        """The same with the time and the reason of the end."""
        return replace(self, ended=_now(), reason=None if reason is None else reason[:LONGEST_REASON])


def this_system() -> tuple[str, str]:
    """The name of this host, and the id of its boot."""
    try:
        return platform.node(), _BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        return platform.node(), ""


def this_process(locked: bool) -> Owner:
    """The owner of an attempt that begins now."""
    return Owner(*this_system(), os.getpid(), _now(), locked)


def packed(owner: Owner) -> bytes:
    """The content of the file, always as long."""
    return (json.dumps(asdict(owner)) + "\n").encode().rjust(ROOM)


def unpacked(content: bytes) -> Owner | None:
    """The reverse; None for a file that its owner is still writing."""
    try:
        return Owner(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
