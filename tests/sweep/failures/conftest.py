"""A sweep of twelve small runs in processes of its own, which a test disturbs and starts again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
PATIENCE_SECONDS = 300  # for a state that comes in a few, on a machine that does much else

VIT = "+model.arguments={depth:2,embed_dim:16,num_heads:2}"
WORDS = (
    *("data=digits", "augment=none", "epochs=1", "batch_size=256"),
    *("router=faulty", "seed=range(12)", VIT, "num_experts=4", "placement=[1]"),
    *("runtime.threads=1", "runtime.backend=bmm", "runtime.wandb=disabled"),
    *("runtime.checkpoint_every_steps=1", "runtime.log_every_steps=1"),
    *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
)


@dataclass(frozen=True)
class Command:
    """A sweep that goes on beside the test."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def end(self) -> "Ended":
        """Wait for it."""
        code = self.process.wait(PATIENCE_SECONDS)
        return Ended(code, self.out.read_text().splitlines(), self.err.read_text())


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Inside, what is started heeds SIGINT, also where a shell has put the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int
    lines: list[str]
    """Of its output."""
    errors: str


@dataclass(frozen=True)
class Trial:
    """The sweep of seeds 0 to 11 with the router `faulty`, which shares `folder` with the test."""

    folder: Path
    results: Path
    commands: list[Command] = field(default_factory=list)
    """Those that were started."""

    def start(self, *words: str, **environment: str) -> Command:
        """Start the sweep."""
        program = (sys.executable, "-m", "routerbench", "train", "-m", "--config-dir", str(HERE / "faulty"))
        shared = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FAULTY_FOLDER": str(self.folder)}
        out, err = (self.folder / f"{len(self.commands)}.{kind}" for kind in ("out", "err"))
        with out.open("wb") as to_out, err.open("wb") as to_err, heeding_interrupts():
            process = subprocess.Popen(
                [*program, *WORDS, f"runtime.results={self.results}", *words],
                env={**os.environ, **shared, **environment},
                cwd=self.folder,
                stdout=to_out,
                stderr=to_err,
                start_new_session=True,
            )
        self.commands.append(Command(process, out, err))
        return self.commands[-1]

    def finish(self, **environment: str) -> Ended:
        """Start the sweep until it does not ask for more."""
        for _ in range(3):
            ended = self.start(**environment).end()
            if ended.code != os.EX_TEMPFAIL:
                return ended
        raise AssertionError("the sweep asks to be started again and again")

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
        """Of the sweeps that this test has started, whoever started them."""
        mark = f"FAULTY_FOLDER={self.folder}".encode()
        found: list[int] = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is another user's
                if mark in (process / "environ").read_bytes().split(b"\0"):
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
def prepared(folder: Path) -> Iterator[Trial]:
    """A sweep that nobody has started; what is left of it in the end is killed."""
    trial = Trial(folder / "shared", folder / "results")
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
def trial(tmp_path: Path) -> Iterator[Trial]:
    """A sweep that nobody has started."""
    with prepared(tmp_path) as trial:
        yield trial


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trial, Ended]]:
    """A sweep that was left alone."""
    with prepared(tmp_path_factory.mktemp("undisturbed")) as trial:
        yield trial, trial.start().end()
