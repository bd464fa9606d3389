"""What is refused of a sweep before any of it runs."""

import re

import pytest

from routerbench.compose import compose_sweep
from routerbench.sweep.check import check_parts


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("eval.linear_probe.held_out=1.5", "eval.linear_probe.held_out=1.5 must be a number below 1"),
        ("eval.fewshot.num_draws=0", "eval.fewshot.num_draws=0 must be a whole number of at least 1"),
    ],
)
def test_a_probe_that_cannot_be_is_named_with_its_cell(word: str, text: str) -> None:
    probe = word.split(".")[1]
    words = ["data=digits", "router=dense", "seed=0,1", "+model.arguments.depth=1", f"+eval={probe}", word]
    sweep = compose_sweep(words, None, multirun=True)
    with pytest.raises(ValueError, match=f"^cell 1 of 2 .*{re.escape(text)}$"):
        check_parts(sweep, sweep.cells)
