"""Estimates rest on what was measured, say on what, and are none without it."""

from dataclasses import replace

import pytest

from routerbench.ledger.entry import Entry
from routerbench.overview.estimate import Estimate, Expected, Experience, Size, expected

RUN = Entry(
    run_id="dense-s0",
    group="dense",
    twin="vit",
    seed=0,
    status="done",
    error=None,
    top1=0.5,
    flops_per_image=100.0,
    params_total=10.0,
    num_images=5.0,
    train_seconds=20.0,
    device="here",
    num_processes=1,
    finished=None,
    disk_bytes=40,
)


def of(group: str, *done: Entry, size: Size | None = None) -> Expected:
    earlier = Experience()
    for run in done:
        earlier.add(run)
    return expected(group, size, "here", 1, earlier)


def test_other_seeds_are_averaged() -> None:
    told = of("dense", RUN, replace(RUN, seed=1, train_seconds=30.0, disk_bytes=60))
    assert told.seconds == Estimate(25.0, "seeds", 2)
    assert told.disk_bytes == Estimate(50.0, "seeds", 2)
    assert (told.flops_per_image, told.counted) == (100.0, False)
    assert told.training_flops == 3 * 100 * 5


def test_another_configuration_counts_by_its_size() -> None:
    # Three times the FLOPs take three times the seconds; twice the parameters twice the disk.
    told = of("soft", RUN, size=Size(300, 20))
    assert told.seconds == Estimate(60.0, "twins", 1)
    assert told.disk_bytes == Estimate(80.0, "twins", 1)
    assert (told.flops_per_image, told.counted) == (300, True)
    assert told.training_flops == 3 * 300 * 5


def test_its_own_seeds_come_before_its_twins() -> None:
    other = replace(RUN, group="soft", train_seconds=1.0, disk_bytes=1)
    assert of("dense", RUN, other).seconds == Estimate(20.0, "seeds", 1)


@pytest.mark.parametrize("change", [{"device": "there"}, {"num_processes": 4}, {"train_seconds": None}])
def test_seconds_of_elsewhere_tell_nothing_of_here(change: dict[str, object]) -> None:
    told = of("dense", replace(RUN, **change))  # pyright: ignore[reportArgumentType]
    assert told.seconds is None
    assert told.disk_bytes == Estimate(40.0, "seeds", 1)
    assert told.training_flops == 3 * 100 * 5


def test_a_seed_elsewhere_is_followed_by_a_twin_here() -> None:
    twin = replace(RUN, group="soft", flops_per_image=50.0)
    assert of("dense", replace(RUN, device="there"), twin).seconds == Estimate(40.0, "twins", 1)


def test_nothing_is_made_up() -> None:
    assert of("soft") == Expected(None, False, None, None, None)
    counted = of("soft", size=Size(300, 20))
    assert counted == Expected(300, True, None, None, None)
    bare = replace(RUN, flops_per_image=None, params_total=None, num_images=None)
    assert of("soft", bare, size=Size(300, 20)) == Expected(300, True, None, None, None)
