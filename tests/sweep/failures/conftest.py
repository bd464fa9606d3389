"""A sweep of six small runs in processes of its own, which a test disturbs and starts again."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fork_server import PATIENCE_SECONDS, ForkServer, Started

from routerbench.sweep.launchers import num_cores

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]

VIT = "+model.arguments={depth:2,embed_dim:16,num_heads:2}"
WORDS = (
    *("data=digits", "augment=none", "epochs=1", "batch_size=256"),
    *("router=faulty", "seed=range(6,12)", VIT, "num_experts=4", "placement=[1]"),
    *("runtime.threads=1", "runtime.backend=bmm", "runtime.wandb=disabled"),
    *("runtime.checkpoint_every_steps=1", "runtime.log_every_steps=1"),
)
IN_TWO_PROCESSES = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@dataclass(frozen=True)
class Command:
    """A sweep that goes on beside the test."""

    process: Started

    def end(self) -> "Ended":
        """Wait for it."""
        ended = self.process.end()
        return Ended(ended.returncode, ended.stdout.splitlines(), ended.stderr)


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int
    lines: list[str]
    """Of its output."""
    errors: str


@dataclass(frozen=True)
class Trial:
    """The sweep of seeds 6 to 11 with the router `faulty`, which shares `folder` with the test."""

    folder: Path
    results: Path
    fork_server: ForkServer
    commands: list[Command] = field(default_factory=list)
    """Those that were started."""

    def start(self) -> Command:
        """Start the sweep in two processes of the command; skips the test where it may use one core alone."""
        if num_cores() < 2:
            pytest.skip("two processes are refused on one core")
        return self._start(*IN_TWO_PROCESSES)

    def finish(self) -> "Ended":
        """Start the sweep in one process until it does not ask for more."""
        for _ in range(3):
            ended = self._start().end()
            if ended.code != os.EX_TEMPFAIL:
                return ended
        raise AssertionError("the sweep asks to be started again and again")

    def _start(self, *words: str) -> Command:
        program = ("-m", "routerbench", "train", "-m", "--config-dir", HERE / "faulty")
        shared = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FAULTY_FOLDER": str(self.folder)}
        process = self.fork_server.start(
            *program,
            *WORDS,
            f"runtime.results={self.results}",
            *words,
            env={**os.environ, **shared},
            cwd=self.folder,
        )
        self.commands.append(Command(process))
        return self.commands[-1]

    def hold(self) -> None:
        """From now on every run waits in its midst."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        """Let all runs go on."""
        (self.folder / "hold").unlink()

    def held(self, number: int) -> list[int]:
        """Wait until so many runs wait; gives back their processes."""

        def waiting() -> list[int]:
            assert all(command.process.poll() is None for command in self.commands)
            alive = self.processes()
            return [process for process in alive if (self.folder / f"held-{process}").exists()]

        wait_for(lambda: len(waiting()) == number)
        return waiting()

    def processes(self) -> list[int]:
        """Of the sweeps that this test has started, each of which is a session, whoever started them."""
        sessions = {command.process.pid for command in self.commands}
        found: list[int] = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if os.getsid(int(process.name)) in sessions:
                    found.append(int(process.name))
        return found

    def wait_until_gone(self) -> None:
        """No process is left behind, once those that look for their parent have had the time."""
        wait_for(lambda: not self.processes())

    def steps(self) -> dict[int, int]:
        """How many steps were taken in all, by seed."""
        files = self.folder.glob("steps-*")
        return {int(file.name.removeprefix("steps-")): len(file.read_text().split()) for file in files}


def wait_for(state: Callable[[], bool]) -> None:
    """Look again and again; what does not come fails the test."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not state():
        assert time.monotonic() < until, state
        time.sleep(0.05)


@contextmanager
def prepared(folder: Path, fork_server: ForkServer) -> Iterator[Trial]:
    """A sweep that nobody has started; what is left of it in the end is killed."""
    trial = Trial(folder / "shared", folder / "results", fork_server)
    trial.folder.mkdir()
    trial.results.mkdir()
    try:
        yield trial
    finally:
        for process in trial.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for command in trial.commands:
            command.process.wait()


@pytest.fixture
def trial(tmp_path: Path, fork_server: ForkServer) -> Iterator[Trial]:
    """A sweep that nobody has started."""
    with prepared(tmp_path, fork_server) as trial:
        yield trial


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Iterator[tuple[Trial, Ended]]:
    """A sweep in one process that was left alone."""
    with prepared(tmp_path_factory.mktemp("undisturbed"), fork_server) as trial:
        yield trial, trial.finish()
