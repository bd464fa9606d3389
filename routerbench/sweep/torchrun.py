"""A cell that many processes train: one job is one torchrun, which trains nothing but that cell."""

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from routerbench.refusal import say
from routerbench.signals import Warned
from routerbench.sweep.stop import Stop


def num_processes(config: Any) -> int:
    """How many processes a cell is laid out for."""
    return config.parallel.data * config.parallel.shard * config.parallel.expert


def under_torchrun() -> bool:
    """Whether this process is one of those that torchrun started."""
    return "WORLD_SIZE" in os.environ


def is_for_many(config: Any) -> bool:
    """Whether a torchrun is still to be started for a cell."""
    return num_processes(config) > 1 and not under_torchrun()


def run_by_torchrun(config: Any, repeat: str, title: str, warned: Warned, stop: Stop | None) -> str:
    """Run the command that `repeat`s one cell as its processes, and give back what became of the run.

    By `stop` they end with this command, even where it is killed. Raises ChildProcessError where they end
    without an outcome that nobody asked for.
    """
    from routerbench.identity import identity, run_id
    from routerbench.ledger.ledger import read_ledger

    number = num_processes(config)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}")
    threads = {"OMP_NUM_THREADS": str(config.runtime.threads)} if config.runtime.threads else {}
    environment = os.environ | threads | (stop.environment() if stop else {})
    print(f"{title}  {number} processes", flush=True)
    words = [*torchrun, "-m", *shlex.split(repeat)]
    process = subprocess.Popen(words, env=environment, start_new_session=True)
    code = _wait_for(process, warned)
    standing = read_ledger(Path(config.runtime.results)).standing(run_id(identity(config)))
    if standing.state in ("missing", "interrupted") and not warned.by:
        raise ChildProcessError(f"torchrun ended with code {code} and left the run {standing.state}")
    if warned.by:
        say(f"{title}  stopped by {warned.by}")
    return standing.state


def _wait_for(process: subprocess.Popen[bytes], warned: Warned) -> int:
    """The exit code of torchrun, which gives a SIGTERM to its processes; they keep the state of the run."""
    try:
        while warned.by is None:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(0.2)
        process.send_signal(signal.SIGTERM)
        return process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
