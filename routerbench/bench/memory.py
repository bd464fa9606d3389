"""How much memory a step takes at its peak, beyond what stands before it."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from routerbench.costs import MemoryMeter
from routerbench.timing import Contestant


def peak_bytes(contestant: Contestant, device: torch.device) -> int | None:
    """Largest sum of tensors that a step holds at one time, its gradients included; None where unknown.

    What PyTorch's allocator gives out, so the same in every run; not what the process has of the system.
    """
    if device.type == "cpu":
        return _peak_on_cpu(contestant)
    meter = MemoryMeter.start(device)
    contestant.step()
    peak = meter.peak_gib() if device.type == "cuda" else None
    contestant.reset()
    return None if peak is None else round(peak * 2**30)


def _peak_on_cpu(contestant: Contestant) -> int:
    with _without_log(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        contestant.step()
    contestant.reset()
    with TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events: list[dict[str, Any]] = json.loads(trace.read_text())["traceEvents"]
    changes = [event["args"] for event in events if event["name"] == "[memory]"]
    return _peak(sorted(changes, key=lambda change: change["Ev Idx"]))


def _peak(changes: Sequence[dict[str, Any]]) -> int:
    """The largest sum of what stands; what stood before is no part of it, nor does its end count."""
    standing: dict[int, int] = {}
    total = peak = 0
    for change in changes:
        address, num_bytes = change["Addr"], change["Bytes"]
        if num_bytes > 0:
            standing[address] = num_bytes
            total += num_bytes
        else:
            total -= standing.pop(address, 0)
        peak = max(peak, total)
    return peak


@contextmanager
def _without_log() -> Iterator[None]:
    """The profiler's library writes to the process's standard error, whatever its log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
