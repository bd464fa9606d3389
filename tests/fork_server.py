"""A process that has imported what the program imports, and starts it as copies of itself.

A test that starts the program pays for its work alone, and not for three seconds of imports. `ForkServer` is
what tests speak to; run as a file, this is the process, which lives as long as its standard input.
"""

import contextlib
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PATIENCE_SECONDS = 300  # for what takes a few, on a machine that does much else
# What imports all that the program does, and starts no thread, which no copy would have.
IMPORTED = (
    "matplotlib.pyplot",
    "pandas",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "routerbench.cli",
    "routerbench.evaluations.run",
    "routerbench.experiment",
    "routerbench.inspection.run",
    "routerbench.overview.plan",
    "routerbench.report",
    "routerbench.sweep.run",
)
PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h
NUM_FILES = 4  # that travel with a request: stdin, stdout, stderr and the socket of the answer


@dataclass
class Started:
    """A program that runs beside the test."""

    words: list[str]
    pid: int
    out: Path
    err: Path
    answers: socket.socket
    returncode: int | None = field(default=None, init=False)

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        with contextlib.suppress(TimeoutError, BlockingIOError):
            return self.wait(0)
        return None

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Its exit code, which is that of its death by a signal where it is negative; raises TimeoutError."""
        if self.returncode is None:
            self.answers.settimeout(timeout)
            self.returncode = int(self.answers.recv(64))
            self.answers.close()
        return self.returncode

    def end(self, timeout: float = PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
        """Wait for it, and read what it has said."""
        code = self.wait(timeout)
        return subprocess.CompletedProcess(self.words, code, self.out.read_text(), self.err.read_text())

    def send_signal(self, number: int) -> None:
        """Send it a signal; none where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it where it has not ended."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts what `python WORDS...` would: `-m module ...`, `-c code ...` or a file, without its imports."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        self._requests, self._num_started = ours, 0
        self._folder = TemporaryDirectory()

    def start(self, *words: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Started:
        """Start a program in a session of its own, in this folder and with this environment."""
        self._num_started += 1
        out, err = (Path(self._folder.name, f"{self._num_started}.{kind}") for kind in ("out", "err"))
        ours, theirs = socket.socketpair()
        request = {
            "words": [str(word) for word in words],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ) if env is None else env,
        }
        with theirs, Path(os.devnull).open() as nothing, out.open("w") as to_out, err.open("w") as to_err:
            files = [file.fileno() for file in (nothing, to_out, to_err, theirs)]
            socket.send_fds(self._requests, [json.dumps(request).encode()], files)
        ours.settimeout(PATIENCE_SECONDS)  # the first waits for the imports
        return Started(request["words"], int(ours.recv(64)), out, err, ours)

    def run(
        self, *words: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Start a program and wait for its end."""
        return self.start(*words, cwd=cwd, env=env).end()

    def routerbench(self, *words: object, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return self.run("-m", "routerbench", *words, **settings)

    def close(self) -> None:
        """Let the process end, once all that it has started have."""
        self._requests.close()
        self._process.wait(PATIENCE_SECONDS)
        self._folder.cleanup()


def serve(requests: socket.socket) -> Callable[[], None] | None:
    """Start programs until nobody asks any more; in a copy of this process it gives back its program."""
    answers: dict[int, socket.socket] = {}  # by process
    ended, woken = socket.socketpair()
    ended.setblocking(False)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a program leaves behind counts as its cost
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(ended.fileno())
    with ended, woken:
        while True:
            readable, _, _ = select.select([requests, woken], [], [])
            if woken in readable:
                woken.recv(4096)
                reap(answers)
            if requests in readable:
                message, files, _, _ = socket.recv_fds(requests, 2**20, NUM_FILES)
                if not message:
                    return None
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return partial(become, json.loads(message), files)
                *standard, answer = files
                for descriptor in standard:
                    os.close(descriptor)
                answers[pid] = socket.socket(fileno=answer)
                answers[pid].send(str(pid).encode())


def reap(answers: dict[int, socket.socket]) -> None:
    """Say of each program that has ended how, and let go also what programs have left behind."""
    with contextlib.suppress(ChildProcessError):  # there is none
        while found := os.waitpid(-1, os.WNOHANG):
            pid, status = found
            if pid == 0:
                return
            if pid in answers:
                with answers.pop(pid) as answer, contextlib.suppress(BrokenPipeError):  # nobody waits for it
                    answer.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(request: dict[str, Any], files: list[int]) -> None:
    """Be the program that is asked for."""
    os.setsid()
    *standard, answer = files
    os.close(answer)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    first, *words = request["words"]
    if first == "-c":
        code, *words = words
        sys.argv[:] = ["-c", *words]
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        module, *words = words
        sys.argv[:] = ["-m", *words]
        if "PYTHONSAFEPATH" not in os.environ:
            sys.path.insert(0, request["cwd"])
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = [first, *words]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    channel = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTED:
        import_module(name)
    gc.collect()
    gc.freeze()  # no copy looks at it
    program = serve(channel)
    channel.close()
    if program is not None:
        program()
