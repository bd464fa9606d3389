"""A run read back computes what it computed when it was trained, and nothing in its folder is executed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

import routerbench as rb
from routerbench.build import router_names
from routerbench.compose import compose_sweep
from routerbench.identity import identity
from routerbench.moe.surgery import take_shape
from routerbench.parts import start
from routerbench.weights import FILES, write_weights

TINY = ("+model.arguments.depth=2", "+model.arguments.embed_dim=16", "+model.arguments.num_heads=2")
POCKET = Path(__file__).parents[1] / "results" / "pocket" / "runs"


def changed(model: nn.Module) -> nn.Module:
    """With other weights than those of its start."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def trained(config: DictConfig, folder: Path, num_classes: int = 7) -> nn.Module:
    """A model that stands for a trained one, with what its run would leave in the folder."""
    model, _ = start(config, num_classes, None)
    size = config.data.image_size
    take_shape(model, (size, size))
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(identity(config))))
    write_weights(folder, changed(model))
    return model


def composed(*words: str) -> DictConfig:
    return compose_sweep(words, None, False).configs[0]


@torch.no_grad()
def same(one: nn.Module, other: nn.Module, image_size: int = 32) -> bool:
    images = torch.randn(3, 3, image_size, image_size)
    return torch.equal(one(images), other(images))


@pytest.mark.parametrize("router", [*router_names(), "dense"])
def test_every_router_comes_back(router: str, tmp_path: Path) -> None:
    model = trained(composed(*TINY, f"router={router}", "num_experts=4"), tmp_path)
    loaded = rb.load_run(tmp_path)
    assert not any(module.training for module in loaded.modules())
    assert len(rb.moe_layers(loaded)) == (router != "dense")
    assert same(loaded, model)


@pytest.mark.parametrize(
    "words",
    [
        ["model=pocket_convnext", "placement=stage", "extra_skip=true"],
        ["model=pocket_convnext_iso", "expert_mlp_ratio=2"],
        [*TINY, "data.image_size=48", "router.scorer=cosine", "group=8", "batch_size=64"],
        [*TINY, "expert_init=upcycle", "model.weights=gone.pth"],
        [*TINY, "expert_init=null", "model.weights=gone"],
        [
            "model.name=swin_tiny_patch4_window7_224",
            "data.image_size=224",
            "+model.arguments.depths=[1,1,1,1]",
        ],
    ],
)
def test_other_settings_come_back(words: list[str], tmp_path: Path) -> None:
    config = composed("router=token_choice", "num_experts=4", *words)
    model = trained(config, tmp_path)
    assert same(rb.load_run(str(tmp_path)), model, config.data.image_size)


@pytest.mark.parametrize("run", sorted(POCKET.glob("*-s0-*")), ids=lambda path: path.name.split("-")[2])
def test_the_configurations_of_old_records(run: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(run / "config.yaml")
    assert isinstance(config, DictConfig)
    with pytest.raises(ValueError, match=r"^path=\S+ has no weights\.safetensors: give the folder of a fin"):
        rb.load_run(run)
    shutil.copytree(run, tmp_path / "run")
    model, _ = start(config, 10, None)
    take_shape(model, (32, 32))
    write_weights(tmp_path / "run", changed(model))
    assert same(rb.load_run(tmp_path / "run"), model)


def test_raw_weights_or_their_average(tmp_path: Path) -> None:
    raw = trained(composed(*TINY), tmp_path)
    shutil.copytree(tmp_path, tmp_path / "other")
    average = trained(composed(*TINY), tmp_path / "other")
    (tmp_path / "other" / FILES["raw"]).rename(tmp_path / FILES["ema"])
    assert same(rb.load_run(tmp_path), raw)  # no record ranks any
    assert same(rb.load_run(tmp_path, weights="ema"), average)
    record = {"schema": 1, "run_id": "a", "status": "done", "config": {"router": {"name": "a"}, "seed": 0}}
    for ranking, ranked in (({}, raw), ({"evaluation": {"weights": "ema"}}, average)):
        (tmp_path / "record.json").write_text(json.dumps(record | ranking))
        assert same(rb.load_run(tmp_path), ranked)
    assert same(rb.load_run(tmp_path, weights="raw"), raw)
    with pytest.raises(ValueError, match=r"^weights=best is not one of: raw, ema$"):
        rb.load_run(tmp_path, weights="best")
    (tmp_path / FILES["ema"]).unlink()
    with pytest.raises(
        ValueError, match=r"has no weights_ema\.safetensors: give the folder of a finished run"
    ):
        rb.load_run(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a small run."""
    trained(composed(*TINY, "router=token_choice", "num_experts=2"), tmp_path / "run")
    return tmp_path / "run"


def refused(run: Path) -> str:
    with pytest.raises(ValueError, match=f"^{re.escape(f'path={run} ')}") as caught:
        rb.load_run(run)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"path={run} ")


def rewrite(run: Path, change: Callable[[DictConfig], Any]) -> None:
    config = OmegaConf.load(run / "config.yaml")
    assert isinstance(config, DictConfig)
    change(config)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "has a config.yaml that cannot be read (ParserError): give another run"),
        ("hello", "has a config.yaml without router and placement, which every run has"),
        ("[1, 2]", "has a config.yaml without router and placement, which every run has"),
        ("", "has a config.yaml without router and placement, which every run has"),
        (
            "{router: {name: dense}, placement: none, model: {name: pocket_vit}}",
            "has a config.yaml without model.arguments: give the folder of a finished run",
        ),
        (
            "router: {name: '${oc.env:HOME}'}",
            "has a config.yaml with interpolations (${...}), which no run has",
        ),
        (
            "!!python/object/apply:os.mkdir [ran]",
            "has a config.yaml that cannot be read (ConstructorError): give another run",
        ),
    ],
)
def test_configurations_of_no_run(text: str, problem: str, run: Path) -> None:
    (run / "config.yaml").write_text(text)
    assert refused(run) == problem


def test_folders_of_no_run(run: Path) -> None:
    assert refused(run / "no") == "has no config.yaml: give the folder of a finished run"
    (run / "weights.safetensors").unlink()
    assert refused(run) == "has no weights.safetensors: give the folder of a finished run"


def test_weights_of_another_run(run: Path) -> None:
    rewrite(run, lambda config: config.update(num_experts=4))
    assert refused(run) == (
        "has other weights than its config.yaml says: its blocks.1.mlp.router.scorer.weight is of shape "
        "(2, 16), and the model's of (4, 16)"
    )


@pytest.mark.parametrize(
    "target", ["evil.Evil", "evil", "package.evil.Evil", "routerbench.routers.evil.a.Evil"]
)
def test_a_module_that_is_not_imported_does_not_run(
    target: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    for file in ("evil.py", "package/__init__.py", "package/evil.py"):
        (tmp_path / file).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    rewrite(run, lambda config: config.router.update(_target_=target))
    module = target.rpartition(".")[0] or target
    assert refused(run) == (
        f"has router._target_={target}, which is not of this package: if you trust it, import {module} first "
        "(eval and inspect: --import FILE)"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("os.getcwd", "router._target_=os.getcwd cannot be found: "),
        ("torch.nn.Identity", "router._target_=torch.nn.Identity is not a Router"),
        ("routerbench.routers.gone.Gone", "router._target_=routerbench.routers.gone.Gone cannot be found: "),
    ],
)
def test_what_is_no_router_is_not_called(target: str, problem: str, run: Path) -> None:
    rewrite(run, lambda config: config.router.update(_target_=target))
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        rb.load_run(run)


def test_nothing_else_is_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *words, **_: opened.append(words))
    monkeypatch.setattr("timm.models._factory.load_checkpoint", lambda *words, **_: opened.append(words))
    rewrite(run, lambda config: config.model.arguments.update(pretrained=True, checkpoint_path="evil.pth"))
    rb.load_run(run)
    assert opened == []
    rewrite(run, lambda config: config.model.update(name="hf-hub:evil/model"))
    with pytest.raises(ValueError, match=r"^model\.name=hf-hub:evil/model is not a timm model"):
        rb.load_run(run)
