from collections import Counter
from itertools import pairwise

import pytest
import torch

from routerbench.timing import SLOW, SLOW_ROUNDS, WARMUP_ROUNDS, Contestant, Step, clock, rounds


class Track:
    """Contestants that write down what is done to them, and take as long as they are told to."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.done: list[str] = []
        self.contestants = [
            Contestant(name, lambda name=name: name, lambda name=name: self.done.append(f"reset {name}"))
            for name in seconds
        ]

    def seconds_of(self, step: Step) -> float:
        name = str(step())
        self.done.append(name)
        return self.seconds[name]


def test_all_take_part_in_every_round() -> None:
    track = Track(dense=1.0, ours=1.5, theirs=2.0)
    seconds = rounds(track.contestants, track.seconds_of, repeats=4)
    assert seconds == {"dense": [1.0] * 4, "ours": [1.5] * 4, "theirs": [2.0] * 4}
    names = track.done[::2]
    for first in range(0, len(names), 3):
        assert sorted(names[first : first + 3]) == ["dense", "ours", "theirs"]
    assert len(names) == 3 * (WARMUP_ROUNDS + 4)


def test_each_step_is_followed_by_its_reset() -> None:
    track = Track(dense=1.0, ours=1.5)
    rounds(track.contestants, track.seconds_of, repeats=3)
    assert track.done[1::2] == [f"reset {name}" for name in track.done[::2]]


def test_the_order_changes_from_round_to_round() -> None:
    track = Track(**dict.fromkeys("abcd", 1.0))
    rounds(track.contestants, track.seconds_of, repeats=20)
    names = track.done[::2]
    followers = Counter(pairwise(names))
    assert all(followers[first, second] for first in "abcd" for second in "abcd" if first != second)


def test_the_slow_leave_after_the_first_rounds() -> None:
    track = Track(dense=1.0, slow=SLOW + 0.1, fair=SLOW - 0.1)
    seconds = rounds(track.contestants, track.seconds_of, repeats=6)
    assert {name: len(taken) for name, taken in seconds.items()} == {
        "dense": 6,
        "slow": SLOW_ROUNDS,
        "fair": 6,
    }


@pytest.mark.parametrize(("threads", "name"), [(1, "CPU time"), (2, "wall time")])
def test_the_clock_of_a_cpu(threads: int, name: str) -> None:
    found, seconds_of = clock(torch.device("cpu"), threads)
    steps: list[int] = []
    assert (found, seconds_of(lambda: steps.append(1)) >= 0, steps) == (name, True, [1])
