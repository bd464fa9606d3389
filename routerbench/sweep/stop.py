"""How a command asks the jobs that it has on this machine to keep their state and end.

A job may be in a process that the command cannot signal, and can outlive the command. So both look at a
folder, of which the command holds a lock for as long as it lives, and each job another one. Something else
may clean that folder away, which is nobody's end: then a command lives while there is a process of its
number, it can ask its jobs to end as before, but cannot wait for those that run.
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
VARIABLE = "ROUTERBENCH_STOP"  # of the environment: process and folder, for commands that a job starts


@dataclass(frozen=True)
class Stop:
    """Whether the jobs of a command are to end."""

    folder: Path
    process: int
    """That of the command."""

    def say(self, why: str) -> None:
        """Ask all jobs to end and wait until they have saved their state.

        Does not wait while a job runs in this process, which the signal interrupted.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        (self.folder / "why").write_text(why)
        if not self._has_thread("listener"):
            self._wait_for_jobs()

    def environment(self) -> dict[str, str]:
        """What has the jobs of a command that a job starts end with this one too."""
        return {VARIABLE: f"{self.process} {self.folder}"}

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
            while not over.wait(SECONDS):
                if warned.by is None:
                    look()

        if os.getpid() != self.process:
            self._end_this_process_with_the_command()
        with self._job():
            look()
            listener = threading.Thread(target=listen, name=self._thread("listener"), daemon=True)
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
        except FileNotFoundError:
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
            return not _is_there(self.process)
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
            time.sleep(2 * SECONDS)  # in which the other processes see it too
            shutil.rmtree(self.folder, ignore_errors=True)
            os._exit(EXIT_CODE)

        if not self._has_thread("watch"):
            threading.Thread(target=watch, name=self._thread("watch"), daemon=True).start()

    def _thread(self, what: str) -> str:
        return f"{what} of {self.folder}"

    def _has_thread(self, what: str) -> bool:
        return any(thread.name == self._thread(what) for thread in threading.enumerate())


@contextmanager
def stop_of_this_command() -> Iterator[Stop]:
    """Inside, this process is the command."""
    with TemporaryDirectory(prefix="routerbench-") as name, Path(name, "command").open("w") as command:
        fcntl.flock(command, fcntl.LOCK_EX)
        Path(name, "jobs").touch()
        yield Stop(Path(name), os.getpid())


def stop_of_the_outer_command() -> Stop | None:
    """By which the command ends us that has a job of which this process is a rank; None without one."""
    process, _, folder = os.environ.get(VARIABLE, "").partition(" ")
    return Stop(Path(folder), int(process)) if folder else None


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:  # or of another user, who has the number by now
        return False
    return True
