"""Every yaml of every group, and every sweep, composes to what can run."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
from omegaconf import DictConfig, OmegaConf

from routerbench import parts
from routerbench.compose import compose_sweep
from routerbench.config import conf_dir


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def composed(words: Sequence[str], multirun: bool = False) -> list[DictConfig]:
    return compose_sweep(words, None, multirun).configs


def test_every_folder_is_a_group_that_is_tested_here() -> None:
    folders = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    assert folders == {"augment", "data", "eval", "model", "optim", "recipe", "router", "runtime", "sweep"}


def test_the_sweeps_of_the_checkout_are_those_that_compose() -> None:
    checkout = Path(__file__).parents[1] / "sweeps"
    assert names("sweep") == sorted(path.stem for path in checkout.glob("*.yaml"))


@pytest.mark.parametrize("name", names("router"))
def test_every_router(name: str) -> None:
    (config,) = composed([f"router={name}"])
    assert config.router.name == name
    parts.verify(config)


@pytest.mark.parametrize("name", names("router"))
def test_every_router_in_a_convnext(name: str) -> None:
    (config,) = composed([f"router={name}", "model=pocket_convnext", "placement=stage"])
    parts.verify(config)


@pytest.mark.parametrize("name", names("model"))
def test_every_model_at_its_own_image_size(name: str) -> None:
    (config,) = composed([f"model={name}"])
    described = timm.get_pretrained_cfg(config.model.name)
    assert described is not None
    config.data.image_size = described.input_size[-1]
    staged = "convnext" in name and "iso" not in name
    config.placement = "stage" if staged else "last_half"
    parts.verify(config)


@pytest.mark.parametrize("name", names("data"))
def test_every_data_set(name: str) -> None:
    model = (
        "pocket_vit" if OmegaConf.load(conf_dir() / "data" / f"{name}.yaml").image_size == 32 else "vit_tiny"
    )
    (config,) = composed([f"data={name}", f"model={model}"])
    assert config.data.name == name
    parts.verify(config)


@pytest.mark.parametrize("name", names("augment"))
def test_every_augmentation(name: str) -> None:
    (config,) = composed([f"augment={name}"])
    assert config.augment.name == name
    parts.verify(config)


@pytest.mark.parametrize("name", names("eval"))
def test_every_further_evaluation(name: str) -> None:
    (config,) = composed([f"+eval={name}"])
    assert list(config.eval) == [name]
    parts.verify(config)


@pytest.mark.parametrize("group", ["optim", "runtime"])
def test_every_optimizer_and_every_runtime(group: str) -> None:
    for name in names(group):
        (config,) = composed([f"{group}={name}"])
        parts.verify(config)


@pytest.mark.parametrize("name", names("router"))
def test_what_must_be_equal_is_not_in_a_router(name: str) -> None:
    router = OmegaConf.load(conf_dir() / "router" / f"{name}.yaml")
    train = OmegaConf.load(conf_dir() / "train.yaml")
    assert isinstance(router, DictConfig)
    assert isinstance(train, DictConfig)
    shared = (set(router) & set(train)) - {"defaults", "hydra"}
    # A shared setting may only be passed on, so that no router has a value of its own for it.
    raw = OmegaConf.to_container(router, resolve=False)
    assert isinstance(raw, dict)
    by_token = "top_k" in raw
    if by_token:
        assert raw["top_k"] == "${slots_per_token}"
    factor = "${capacity_factor}" if by_token else "${times:${slots_per_token},${capacity_factor}}"
    assert {key: raw[key] for key in shared} == ({"capacity_factor": factor} if shared else {})


@pytest.mark.parametrize("name", names("router"))
def test_two_slots_for_every_token_are_twice_those_of_one(name: str) -> None:
    def asked_for(*words: str) -> float:
        router = composed([f"router={name}", *words])[0].router
        return router.get("top_k", 1) * router.get("capacity_factor", 1)

    assert asked_for("slots_per_token=2") == (2 if name != "dense" else 1) * asked_for()
    if name != "dense":
        assert asked_for("slots_per_token=2", "capacity_factor=0.5") == 1
        assert asked_for("slots_per_token=2", "router.capacity_factor=0.5") in (0.5, 1)


@pytest.mark.parametrize("name", ["soft", "expert_choice", "uniform"])
def test_what_does_not_choose_by_token_may_have_half_a_slot_for_each(name: str) -> None:
    (config,) = composed([f"router={name}", "slots_per_token=0.5"])
    parts.verify(config)


def test_what_chooses_by_token_has_whole_slots() -> None:
    for value in (0.5, 9):
        (config,) = composed(["router=hash", f"slots_per_token={value}"])
        text = (
            f"slots_per_token={value} is the top_k of router=hash: give a whole number up to num_experts=8, "
            "or a router that does not choose by token"
        )
        with pytest.raises(ValueError, match=f"^{text}$"):
            parts.verify(config)
    for words in (["router.top_k=1", "slots_per_token=0.5"], ["placement=none", "slots_per_token=0.5"]):
        parts.verify(composed(["router=hash", *words])[0])


def test_a_model_takes_lists() -> None:
    (config,) = composed(["model=pocket_convnext", "+model.arguments.depths=[1,1,2,1]"])
    parts.verify(config)


def test_any_other_model_of_timm() -> None:
    (config,) = composed(["model.name=convnextv2_atto", "data.image_size=64"])
    parts.verify(config)
    (config,) = composed(["model.name=resnet18", "router=dense"])
    parts.verify(config)


def test_a_run_has_one_thread_unless_it_is_given_more() -> None:
    # Runs beside each other must not fight, nor a result hang on the cores of the machine.
    assert composed([])[0].runtime.threads == 1
