"""How much memory a step takes at its peak, beyond what stands before it."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from routerbench.bench.timing import Contestant
from routerbench.costs import MemoryMeter


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
        # Inside, as the profiler goes on counting what is freed unseen.
        contestant.reset()
    with TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events: list[dict[str, Any]] = json.loads(trace.read_text())["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    changes.sort(key=lambda event: event["args"]["Ev Idx"])
    return max(accumulate((change["args"]["Bytes"] for change in changes), initial=0))


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
