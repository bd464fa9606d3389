"""What a test run costs: seconds of the processor, its children included, in all and by file."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

NUM_FILES = 10
COLLECTION = "imports and collection"


@dataclass(frozen=True)
class Seconds:
    """Of the processor."""

    user: float
    system: float

    @property
    def both(self) -> float:
        return self.user + self.system

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.user - other.user, self.system - other.system)

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.user + other.user, self.system + other.system)


def spent() -> Seconds:
    """By this process and all that it has started, whether it has ended or not."""
    times = os.times()
    seconds = Seconds(times.user + times.children_user, times.system + times.children_system)
    for process in psutil.Process().children(recursive=True):
        try:
            child = process.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        seconds += Seconds(child.user + child.children_user, child.system + child.children_system)
    return seconds


class Costs:
    """A plugin of pytest, and of each worker of xdist, which gives what it finds to the first process."""

    def __init__(self) -> None:
        self.by_file: defaultdict[str, float] = defaultdict(float)
        self.of_workers = Seconds(0, 0)
        self.began, self.last = time.monotonic(), Seconds(0, 0)

    def _charge(self, name: str) -> None:
        now = spent()
        self.by_file[name] += (now - self.last).both
        self.last = now

    def pytest_collection_finish(self) -> None:
        self._charge(COLLECTION)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        result = yield
        if nextitem is None or nextitem.path != item.path:
            self._charge(item.nodeid.partition("::")[0])
        return result

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            seconds = spent()
            output["costs"] = [dict(self.by_file), seconds.user, seconds.system]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        by_file, user, system = getattr(node, "workeroutput", {}).get("costs", ({}, 0, 0))
        for name, seconds in by_file.items():
            self.by_file[name] += seconds
        self.of_workers += Seconds(user, system)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        times, wall = os.times(), time.monotonic() - self.began
        total = self.of_workers
        if not total.both:  # then no worker is a child of this process
            total += Seconds(times.children_user, times.children_system)
        total += Seconds(times.user, times.system)
        terminalreporter.section("costs")
        parts = f"user {total.user:.0f}, system {total.system:.0f}"
        terminalreporter.line(f"processor {total.both:.0f} s ({parts}), clock {wall:.0f} s")
        dearest = sorted(self.by_file.items(), key=lambda item: -item[1])[:NUM_FILES]
        for name, seconds in dearest:
            terminalreporter.line(f"{seconds:7.1f} s  {name}")
