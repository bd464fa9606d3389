"""How a command asks the jobs that it has on this machine to keep their state and end.

A job may run in a process that the command cannot signal, or outlive the command. So both look at a folder,
of which the command holds a lock for as long as it lives.
"""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from routerbench.signals import Warned

SECONDS = 1.0  # between two looks


@dataclass(frozen=True)
class Stop:
    """Whether the jobs of a command are to end; a job on another machine sees none of it."""

    folder: Path

    def say(self, why: str) -> None:
        """Ask all jobs to end, and wait until each has kept its state."""
        (self.folder / "why").write_text(why)
        with (self.folder / "jobs").open() as jobs:
            fcntl.flock(jobs, fcntl.LOCK_EX)

    def said(self) -> str | None:
        """Why jobs are to end, None while they are not."""
        try:
            return (self.folder / "why").read_text() or "its command"
        except FileNotFoundError:
            pass
        try:
            with (self.folder / "command").open() as command:
                fcntl.flock(command, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return None
        return "the end of its command"

    @contextmanager
    def heard(self, warned: Warned) -> Iterator[None]:
        """Inside there is a job, which is warned when it is to end, from the start where that was said."""
        over = threading.Event()

        def listen() -> None:
            while not over.wait(SECONDS) and warned.by is None:
                warned.by = self.said()

        with self._job():
            warned.by = warned.by or self.said()
            listener = threading.Thread(target=listen, daemon=True)
            listener.start()
            try:
                yield
            finally:
                over.set()
                listener.join()

    @contextmanager
    def _job(self) -> Iterator[None]:
        """Inside, `say` waits; nothing on another machine."""
        try:
            file = (self.folder / "jobs").open()
        except FileNotFoundError:
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # of processes that it started too


@contextmanager
def stop_of_this_command() -> Iterator[Stop]:
    """Inside, this process is the command."""
    with TemporaryDirectory(prefix="routerbench-") as name, Path(name, "command").open("w") as command:
        fcntl.flock(command, fcntl.LOCK_EX)
        Path(name, "jobs").touch()
        yield Stop(Path(name))
