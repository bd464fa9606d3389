"""Every question of sweeps/: its first lines are true, and what it runs can be run and compared."""

import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from routerbench import parts
from routerbench.compose import Sweep, compose_sweep
from routerbench.config import check, conf_dir, is_dense
from routerbench.moe.surgery import blank_images, moe_layers

FILES = sorted((conf_dir() / "sweep").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
QUESTIONS = (
    "routers",
    "placements",
    "experts",
    "gates",
    "capacity",
    "scales",
    "group_size",
    "transport",
    "upcycling",
)
# What upcycling goes on from is the user's.
WEIGHTS = {"upcycling": ["model.weights=w"], "pocket_upcycling": ["model.weights=w"]}


@cache
def composed(name: str, *words: str) -> Sweep:
    return compose_sweep([f"+sweep={name}", *WEIGHTS.get(name, []), *words], None, multirun=True)


def first_lines(name: str) -> str:
    lines = (conf_dir() / "sweep" / f"{name}.yaml").read_text().partition("hydra:")[0].splitlines()
    assert lines[0] == "# @package _global_"
    return " ".join(line.removeprefix("#").strip() for line in lines[1:])


def test_every_question_has_a_pocket_twin() -> None:
    assert set(NAMES) == {"demo", *QUESTIONS, *(f"pocket_{name}" for name in QUESTIONS)}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_sweep_of_ours_sets_what_is_run_and_no_setting(path: Path) -> None:
    settings = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(settings, dict)
    assert set(settings) <= {"hydra", "union"}
    assert set(settings["hydra"]) == {"mode", "sweeper"}


@pytest.mark.parametrize("name", NAMES)
def test_the_first_lines_are_question_study_runs_time_and_command(name: str) -> None:
    text, sweep = first_lines(name), composed(name)
    assert re.match(r"[A-Z][^?]*\?", text)
    assert re.search(r'After [^"]*"[^"]+" \([A-Z]\w+ et al\. 20\d\d\)', text)
    assert [int(number) for number in re.findall(r"(\d+) runs\b", text)] == [len(sweep.cells)]
    assert re.search(r"about \d+ (minutes|hours) on one core|\d+ epochs on ImageNet-1k", text)
    assert f"routerbench train -m +sweep={name}" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_one_that_its_settings_allow(name: str) -> None:
    sweep = composed(name)
    for cell in sweep.cells:
        check(cell.config)
    datasets = {cell.config.data.name for cell in sweep.cells}
    assert datasets == {"landcover32" if name == "demo" or name.startswith("pocket_") else "folder"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("demo", "pocket_scales") else pytest.param(name, marks=pytest.mark.slow)
        for name in NAMES
        if name == "demo" or name.startswith("pocket_")
    ],
)
def test_every_cell_of_a_pocket_sweep_can_be_built(name: str) -> None:
    for cell in composed(name, "seed=0").cells:
        parts.verify(cell.config)


def slots_per_token(config: DictConfig) -> list[float]:
    """Of every MoE layer: E times C over the tokens of a group, as it routes blank images."""
    with torch.device("meta"):
        model = parts.build_model(config, num_classes=2)
        parts.put_moe_layers(model, config)
    model = model.to("meta")
    layers = moe_layers(model).values()
    model(blank_images(model, (config.data.image_size,) * 2, max(layer.images_per_group for layer in layers)))
    plans = [layer.routing.plan for layer in layers if layer.routing is not None]
    assert len(plans) == len(layers) > 0
    return [plan.gates.shape[-1] * plan.num_slots / plan.gates.shape[1] for plan in plans]


@pytest.mark.parametrize("name", ["pocket_routers", pytest.param("routers", marks=pytest.mark.slow)])
def test_every_router_has_one_or_two_slots_for_every_token(name: str) -> None:
    for cell in composed(name, "seed=0").cells:
        if not is_dense(cell.config):
            wanted = 2 if "slots_per_token=2" in cell.words else 1
            assert set(slots_per_token(cell.config)) == {wanted}, cell.varied


def test_the_demo_rounds_alike_for_every_router() -> None:
    configs = [cell.config for cell in composed("demo", "seed=0").cells if not is_dense(cell.config)]
    assert {slots for config in configs for slots in slots_per_token(config)} == {8 * math.ceil(17 / 8) / 17}


def test_upcycling_without_weights_is_refused() -> None:
    sweep = compose_sweep(["+sweep=pocket_upcycling"], None, multirun=True)
    text = (
        "expert_init=upcycle has no dense weights to start from: give model.weights, or expert_init=shared "
        "or independent"
    )
    starts = {cell.config.expert_init: cell for cell in sweep.cells if not is_dense(cell.config)}
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check(starts["upcycle"].config)
    check(starts["independent"].config)


def test_upcycling_is_held_against_a_new_start_by_its_second_command() -> None:
    words = ["model.weights=null", "expert_init=independent"]
    cells = compose_sweep(["+sweep=pocket_upcycling", *words], None, multirun=True).cells
    assert len(cells) == 15
    assert all(cell.config.model.weights is None for cell in cells)
    assert not {cell.run_id for cell in cells} & {cell.run_id for cell in composed("pocket_upcycling").cells}
