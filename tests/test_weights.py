"""Weights in files: what is written is read, and nothing but weights is."""

import argparse
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from routerbench.build import build_backbone, sparsify
from routerbench.weights import FILE_NAME, check_fit, read_weights, write_weights

WEIGHTS = {"head.weight": torch.arange(6.0).view(2, 3)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model.append(model[0])  # twice the same tensors
    write_weights(tmp_path, model)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert_close(read_weights(tmp_path), dict(model.state_dict()), rtol=0, atol=0)
    assert_close(read_weights(tmp_path / FILE_NAME), load_file(tmp_path / FILE_NAME), rtol=0, atol=0)


def saved(path: Path, content: Any, **settings: Any) -> Path:
    torch.save(content, path, **settings)
    return path


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3, "args": argparse.Namespace(lr=0.1)},  # as timm's training
        {"model": {f"module.{key}": value for key, value in WEIGHTS.items()}},
    ],
)
@pytest.mark.parametrize("name", ["model.pth", "model.pt"])
def test_files_of_torch(name: str, content: dict[str, Any], tmp_path: Path) -> None:
    assert_close(read_weights(saved(tmp_path / name, content)), WEIGHTS, rtol=0, atol=0)


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match=r"^model\.weights=") as caught:
        read_weights(path)
    return str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "model.pth") == (
        f"model.weights={tmp_path}/model.pth does not exist: give pretrained, a file (.safetensors .pth .pt) "
        "or the folder of a run"
    )
    assert refused(tmp_path) == (
        f"model.weights={tmp_path} has no weights.safetensors: give the folder of a finished run"
    )
    (tmp_path / "record.json").write_text("{}")
    assert refused(tmp_path / "record.json") == (
        f"model.weights={tmp_path}/record.json is no file of weights: give one of .safetensors .pth .pt"
    )


class Code:
    """A pickle that would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize(
    "save",
    [
        torch.save,
        lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        lambda content, path: path.write_bytes(pickle.dumps(content)),
    ],
    ids=["zip", "legacy", "plain"],
)
def test_code_in_a_file_never_runs(save: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    save({**WEIGHTS, "more": Code(f"touch {tmp_path}/ran")}, path)
    assert refused(path) == (
        f"model.weights={path} is damaged, or holds more than tensors, which could be code: "
        "save its weights as .safetensors"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(("name", "end"), [("a.pth", 300), ("a.pth", 0), ("a.safetensors", -4)])
def test_damaged_files(name: str, end: int, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:end])
    line = rf"model\.weights={re.escape(str(path))} cannot be read as weights \(\w+\): give another file"
    assert re.fullmatch(line, refused(path))


def test_text_in_place_of_weights(tmp_path: Path) -> None:
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_text("hello world")
        assert re.fullmatch(r"model\.weights=.* \(\w+\): give another file", refused(tmp_path / name))


@pytest.mark.parametrize("content", [{"lr": 0.1}, {}, {"state_dict": {"weight": [1, 2]}}])
def test_files_without_weights(content: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", content)
    assert refused(path) == f"model.weights={path} holds no weights by name: give the state_dict of a model"


def vit() -> dict[str, Tensor]:
    return dict(build_backbone("pocket_vit", 10, 32, depth=1).state_dict())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda w: w.pop("blocks.0.attn.qkv.weight"), "it has no blocks.0.attn.qkv.weight"),
        (
            lambda w: w.update({"head.weight": torch.zeros(7, 64)}),
            "its head.weight is of shape (7, 64), and the model's of (10, 64); model.new_head=true "
            "starts a new one",
        ),
        (
            lambda w: w.update({"blocks.1.norm1.bias": torch.zeros(64)}),
            "it has blocks.1.norm1.bias, and the model has not",
        ),
        (
            lambda w: w.update({"blocks.0.mlp.experts.w1": torch.zeros(1)}),
            "it has experts (blocks.0.mlp.experts.w1), so give the weights of a dense run",
        ),
    ],
)
def test_weights_that_do_not_fit(change: Callable[[dict[str, Tensor]], Any], problem: str) -> None:
    model, weights = build_backbone("pocket_vit", 10, 32, depth=1), vit()
    check_fit(model, weights, source="a.pth", name="pocket_vit")
    change(weights)
    message = f"model.weights=a.pth does not fit model.name=pocket_vit: {problem}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_fit(model, weights, source="a.pth", name="pocket_vit")


def test_the_weights_of_an_moe_run_are_not_those_of_its_backbone(tmp_path: Path) -> None:
    dense = build_backbone("pocket_vit", 10, 32, depth=1)
    write_weights(tmp_path, sparsify(build_backbone("pocket_vit", 10, 32, depth=1), "hash", 2, [0]))
    with pytest.raises(ValueError, match=r": it has experts \(blocks\.0\.mlp\.experts\.\w+\), so give"):
        check_fit(dense, read_weights(tmp_path), source="run", name="pocket_vit")


@pytest.mark.parametrize(
    "values", [torch.ones(2, dtype=torch.int64), torch.full((2,), torch.nan), torch.ones(2).to_sparse()]
)
def test_weights_that_are_no_finite_real_numbers_do_not_fit(values: torch.Tensor) -> None:
    model = nn.LayerNorm(2)
    with pytest.raises(ValueError, match=r": its weight is not of finite real numbers$"):
        check_fit(model, {**model.state_dict(), "weight": values}, source="a.pth", name="b")
