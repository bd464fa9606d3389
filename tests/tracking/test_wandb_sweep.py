"""What W&B's agent runs for each combination of a converted sweep is what the sweep runs."""

import argparse
from itertools import product
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from routerbench.commands import sweep_to_wandb
from routerbench.compose import compose_sweep
from routerbench.tracking.wandb_sweep import wandb_sweeps


def converted(name: str, *words: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(wandb_sweeps(name, words)))


def commands(sweep: dict[str, Any]) -> list[list[str]]:
    """By W&B's own code, from the values that its grid gives."""
    assert sweep["method"] == "grid"
    found = []
    for values in product(*(parameter["values"] for parameter in sweep["parameters"].values())):
        chosen = {key: {"value": value} for key, value in zip(sweep["parameters"], values, strict=True)}
        arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
        command = create_sweep_command(list(sweep["command"]))
        at = command.index("${args_no_hyphens}")
        found.append([*command[:at], *arguments, *command[at + 1 :]])
    return found


def run_ids(name: str, *words: str) -> list[str]:
    found = []
    for sweep in converted(name, *words):
        for program, train, *settings in commands(sweep):
            assert (program, train) == ("routerbench", "train")
            found += [cell.run_id for cell in compose_sweep(settings, None, multirun=False).cells]
    return found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pocket_scales", ["seed=0,1", "router=soft"]),  # +model.arguments.embed_dim
        ("pocket_experts", ["seed=2", "data.path=null"]),  # a union, a part of a split, null
        ("pocket_transport", ["seed=0", "router=sparse_token_choice", "placement=[1],[2,3]"]),  # lists
        (
            "pocket_capacity",
            ["seed=1", "slots_per_token=1", "+model.arguments={depth:4}"],
        ),  # true and false, fractions, a dict
        ("demo", ["seed=0", "router=soft", "optim.lr=1e-3,2e-3"]),
    ],
)
def test_the_agent_runs_what_the_sweep_runs(name: str, words: list[str]) -> None:
    cells = compose_sweep([f"+sweep={name}", *words], None, multirun=True).cells
    assert len(cells) > 1
    assert sorted(run_ids(name, *words)) == sorted(cell.run_id for cell in cells)


def test_a_part_of_a_union_is_a_sweep_of_its_own() -> None:
    first, second = converted("pocket_routers", "epochs=2")
    assert (first["name"], second["name"]) == ("pocket_routers 1", "pocket_routers 2")
    assert second["description"].startswith("Which router is better at equal slots per token? Six routers")
    assert "routerbench train" not in second["description"]
    assert second["command"] == [
        "routerbench",
        "train",
        "num_experts=8",
        "+model.arguments.class_token=False",
        "+model.arguments.global_pool=avg",
        "epochs=2",
        "${args_no_hyphens}",
    ]
    assert list(second["parameters"]) == ["seed", "router", "slots_per_token"]
    assert second["parameters"]["slots_per_token"] == {"values": [1, 2]}


def test_values_have_their_types() -> None:
    (sweep,) = converted("pocket_capacity", "placement=[1],[2,3]", "optim.lr=1e-3,0.5")
    values = {key: parameter["values"] for key, parameter in sweep["parameters"].items()}
    assert values["seed"] == [0, 1, 2]
    assert values["capacity_factor"] == [0.5, 0.75, 1, 2]
    assert values["router.batch_priority"] == [True, False]
    assert all(isinstance(value, bool) for value in values["router.batch_priority"])
    assert values["placement"] == ["[1]", "[2,3]"]
    assert values["optim.lr"] == [0.001, 0.5]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    sweep_to_wandb.add_to(parser.add_subparsers())
    arguments = parser.parse_args(["sweep-to-wandb", "demo", "seed=0,1"])
    assert arguments.run(arguments) == 0
    (sweep,) = yaml.safe_load_all(capsys.readouterr().out)
    assert sweep["parameters"]["seed"] == {"values": [0, 1]}


@pytest.mark.parametrize(
    ("name", "words", "text"),
    [
        ("rooters", [], "sweep=rooters is not one of: "),
        ("demo", ["epoch=3"], "epoch=3 is not a setting"),
        ("demo", ["seed"], "seed is not a setting with its value: write setting=value$"),
    ],
)
def test_what_means_nothing_is_refused(name: str, words: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        wandb_sweeps(name, words)
