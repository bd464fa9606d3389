"""A sweep in the format of W&B's own, one for each part of its union."""

from collections.abc import Sequence
from typing import Any

import yaml

from routerbench.compose import Product, asked, compose_sweep
from routerbench.config import conf_dir

COMMAND = ["routerbench", "train"]
# What W&B's agent puts the chosen values in place of, as key=value.
VALUES = "${args_no_hyphens}"
HOW = """\
# wandb sweep FILE prints the id of the sweep, of which wandb agent ID then runs what is left, on any machine.
# A file holds one sweep: where several stand here, divided by ---, save each in a file of its own.
# W&B shows what its agents do where runtime.wandb=online is among the settings.
"""


def wandb_sweeps(name: str, settings: Sequence[str]) -> str:
    """The YAML of `+sweep=name` with further settings; raises ValueError for words that mean nothing."""
    if "=" in name:
        raise ValueError(f"{name} is not the name of a sweep: give that of a file of sweeps/, then settings")
    words = [f"+sweep={name}", *settings]
    compose_sweep(words, None, multirun=True)  # refuses what no cell can have
    with asked(words, None) as command:
        found = command.products()
    titles = [name] if len(found) == 1 else [f"{name} {number}" for number in range(1, len(found) + 1)]
    documents = [
        yaml.safe_dump(_sweep(title, heading(name), product), sort_keys=False, allow_unicode=True, width=110)
        for title, product in zip(titles, found, strict=True)
    ]
    return HOW + "---\n".join(documents)


def heading(name: str) -> str:
    """What the first lines of a sweep's file say of it, without the commands."""
    lines = (conf_dir() / "sweep" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    said = [line[2:] for line in lines if line.startswith("# ") and not line.startswith(("# @", "#   "))]
    return " ".join(said)


def _sweep(title: str, description: str, product: Product) -> dict[str, Any]:
    """What all runs have stands in the command; W&B keeps what they differ in."""
    fixed = [words[0] for key, words in product.items() if len(words) == 1 and key != "+sweep"]
    varied = {key: words for key, words in product.items() if len(words) > 1}
    return {
        "program": "routerbench",
        "name": title,
        "description": description,
        "method": "grid",
        "command": [*COMMAND, *fixed, VALUES],
        "parameters": {
            key: {"values": [_value(word.removeprefix(f"{key}=")) for word in words]}
            for key, words in varied.items()
        },
    }


def _value(text: str) -> str | int | float | bool:
    """A number or a truth value as W&B may plot it; everything else as the words that it is."""
    value = yaml.safe_load(text) if text.replace(".", "").isalnum() else text
    return value if isinstance(value, int | float) and str(value).lower() == text.lower() else text
