"""The names of modes, as evaluations write them."""

import pytest

from routerbench.report.boards.modes import Evaluated, Replaced, read_mode, read_replacement


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("trained", Evaluated("trained", "")),
        ("capacity_factor=0.25", Evaluated("0.25", "")),
        ("capacity_factor=0.25 batch_priority=true", Evaluated("0.25", "batch_priority=true")),
        ("batch_priority=true", Evaluated("trained", "batch_priority=true")),
        ("dropless=true top_k=2", Evaluated("dropless", "top_k=2")),
        ("dropless=false", Evaluated("trained", "dropless=false")),
        ("weights=ema trained", Evaluated("trained", "weights=ema")),
        ("", Evaluated("trained", "")),
        ("something else", None),
    ],
)
def test_a_mode_is_its_slots_and_what_else_it_changes(name: str, mode: Evaluated | None) -> None:
    assert read_mode(name) == mode


def test_modes_stand_from_as_trained_to_dropless() -> None:
    slots = ["dropless", "10", "0.5", "trained", "2.0", "many"]
    modes = sorted((Evaluated(one, "") for one in slots), key=lambda mode: mode.order)
    assert [mode.slots for mode in modes] == ["trained", "many", "0.5", "2.0", "10", "dropless"]


@pytest.mark.parametrize(
    ("name", "replaced"),
    [
        ("random", Replaced("random", None)),
        ("random blocks.5", Replaced("random", "blocks.5")),
        ("other_seed=1", Replaced("other_seed", None)),
        ("other_seed=1 stages.3.blocks.1 seed=3", Replaced("other_seed", "stages.3.blocks.1")),
        ("random seed=3", Replaced("random", None)),
        ("weights=ema random", None),
        ("", None),
    ],
)
def test_a_replacement_is_of_all_layers_or_of_one(name: str, replaced: Replaced | None) -> None:
    assert read_replacement(name) == replaced
