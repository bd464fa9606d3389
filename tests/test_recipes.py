"""Every recipe composes to what can run, with any router, and says where it is from."""

import re
from pathlib import Path

import pytest
from omegaconf import DictConfig

from routerbench import parts
from routerbench.compose import compose_sweep
from routerbench.config import conf_dir

FILES = sorted((conf_dir() / "recipe").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
ROUTERS = sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml"))


def composed(recipe: str, *words: str) -> DictConfig:
    of_weights = {
        "upcycling": ["model.weights=dense.safetensors"],
        "finetune_384": ["model.weights=run.safetensors"],
    }
    return compose_sweep([f"+recipe={recipe}", *of_weights.get(recipe, []), *words], None, False).configs[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe(name: str) -> None:
    parts.verify(composed(name))


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_recipe_is_headed_by_its_command_and_its_source(path: Path) -> None:
    text = path.read_text()
    assert f"#   routerbench train +recipe={path.stem}" in text
    assert "\n# Source: " in text
    assert re.search(r"\n# (Published: |To be reached |Source: this project)", text)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("name", ["upcycling", "finetune_384", "fashion_vit", "fashion_convnext"])
def test_a_recipe_takes_any_router(name: str, router: str) -> None:
    config = composed(name, f"router={router}")
    assert config.router.name == router
    parts.verify(config)


def test_a_word_of_the_command_counts_more_than_the_recipe() -> None:
    config = composed(
        "deit3_small", "epochs=3", "placement=[1,5]", "model=vit_base", "optim.lr=0.1", "augment=imagenet"
    )
    assert (config.epochs, config.placement, config.optim.lr) == (3, [1, 5], 0.1)
    assert config.optim.name == "lamb"


def test_the_default_is_the_pocket_vit() -> None:
    assert composed("pocket_vit") == compose_sweep([], None, False).configs[0]


def test_the_published_settings_of_vmoe() -> None:
    config = composed(
        "vmoe_s32_imagenet1k", "router=token_choice", "router.top_k=2", "group=8", "augment=imagenet"
    )
    assert (config.batch_size, config.epochs, config.loss.name) == (8192, 300, "sigmoid")
    assert (config.optim.schedule, config.optim.warmup_steps) == ("warmup_linear_decay", 10_000)
    parts.verify(config)
