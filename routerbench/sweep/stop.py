"""How a command asks the jobs that it has on this machine to keep their state and end.

A job may be in a process that the command cannot signal, and can outlive the command. So both look at a
folder, of which the command holds a lock for as long as it lives, and each job another one.
"""

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from routerbench.signals import EXIT_CODE, Warned

SECONDS = 1.0  # between two looks


@dataclass(frozen=True)
class Stop:
    """Whether the jobs of a command are to end."""

    folder: Path
    process: int
    """That of the command."""

    def say(self, why: str) -> None:
        """Ask all jobs to end, and wait until each has kept its state."""
        (self.folder / "why").write_text(why)
        self._wait_for_jobs()

    def said(self) -> str | None:
        """Why jobs are to end, None while they are not."""
        try:
            return (self.folder / "why").read_text() or "its command"
        except FileNotFoundError:
            return "the end of its command" if self._command_is_over() else None

    @contextmanager
    def heard(self, warned: Warned) -> Iterator[None]:
        """Inside there is a job, which is warned when it is to end, from the start where that was said."""
        over = threading.Event()

        def look() -> None:
            why = self.said()
            if why is not None:  # otherwise a signal may just have said something else
                warned.by = why

        def listen() -> None:
            while warned.by is None and not over.wait(SECONDS):
                look()

        if os.getpid() != self.process:
            self._end_this_process_with_the_command()
        with self._job():
            look()
            listener = threading.Thread(target=listen, daemon=True)
            listener.start()
            try:
                yield
            finally:
                over.set()
                listener.join()

    @contextmanager
    def _job(self) -> Iterator[None]:
        """Inside, those wait who wait for jobs."""
        try:
            file = (self.folder / "jobs").open()
        except FileNotFoundError:  # the command is over
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # of processes that it started too

    def _command_is_over(self) -> bool:
        try:
            with (self.folder / "command").open() as command:
                fcntl.flock(command, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            pass
        return True

    def _wait_for_jobs(self) -> None:
        with suppress(FileNotFoundError), (self.folder / "jobs").open() as jobs:
            fcntl.flock(jobs, fcntl.LOCK_EX)

    def _end_this_process_with_the_command(self) -> None:
        """For else it would wait for further jobs for minutes, and hold its memory."""

        def watch() -> None:
            while not self._command_is_over():
                time.sleep(SECONDS)
            self._wait_for_jobs()
            shutil.rmtree(self.folder, ignore_errors=True)
            os._exit(EXIT_CODE)

        name = f"watch of {self.folder}"
        if all(thread.name != name for thread in threading.enumerate()):
            threading.Thread(target=watch, name=name, daemon=True).start()


@contextmanager
def stop_of_this_command() -> Iterator[Stop]:
    """Inside, this process is the command."""
    with TemporaryDirectory(prefix="routerbench-") as name, Path(name, "command").open("w") as command:
        fcntl.flock(command, fcntl.LOCK_EX)
        Path(name, "jobs").touch()
        yield Stop(Path(name), os.getpid())
