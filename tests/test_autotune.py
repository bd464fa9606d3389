"""The fastest backend: measured once, kept, and only among those that can compute the model."""

import errno
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from routerbench import autotune as module
from routerbench.autotune import autotune, backend_times, use_backend
from routerbench.build import build_backbone, sparsify
from routerbench.moe.surgery import moe_layers

SIZE = (16, 16)
FP32 = torch.autocast("cpu", enabled=False)


def model_of() -> nn.Module:
    small = {"patch_size": 4, "depth": 2, "embed_dim": 16, "num_heads": 2}
    return build_backbone("vit_tiny_patch16_224", 5, SIZE[0], **small)


def test_the_fastest_is_taken_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = sparsify(model_of(), "token_choice", num_experts=4, placement=[0, 1])
    times = {"bmm": 3.0, "loop": 2.0, "grouped": 2.5}
    monkeypatch.setattr(module, "backend_times", lambda *arguments: times)
    file = tmp_path / "backends" / "one.json"
    assert autotune(model, SIZE, 4, FP32, file) == "loop"
    assert json.loads(file.read_text()) == {"backend": "loop", "milliseconds": times}
    assert {layer.backend for layer in moe_layers(model).values()} == {"loop"}


def test_what_is_written_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "one.json"
    file.write_text('{"backend": "grouped"}')
    monkeypatch.delattr(module, "backend_times")
    model = sparsify(model_of(), "token_choice", num_experts=4, placement=[1])
    assert autotune(model, SIZE, 4, FP32, file) == "grouped"
    assert {layer.backend for layer in moe_layers(model).values()} == {"grouped"}


def test_a_dense_model_has_no_backend(tmp_path: Path) -> None:
    assert autotune(model_of(), SIZE, 4, FP32, tmp_path / "one.json") is None
    assert use_backend(model_of(), "loop") is None
    assert not list(tmp_path.iterdir())


def test_every_candidate_is_measured_and_the_model_left_as_it_was() -> None:
    model = sparsify(model_of(), "sigmoid_bias", num_experts=4, placement=[0, 1])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = list(moe_layers(model).values())
    times = backend_times(model, layers, SIZE, 4, FP32)
    assert list(times) == ["bmm", "loop", "grouped"]
    assert all(time > 0 for time in times.values())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [layer.backend for layer in layers] == [None, None]


def test_backends_that_know_not_the_experts_are_left_out() -> None:
    # ConvNeXt V2 has a norm over the hidden features.
    model = build_backbone("convnextv2_atto", 5, 32, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    sparsify(model, "expert_choice", num_experts=2, placement="stage")
    assert list(backend_times(model, list(moe_layers(model).values()), (32, 32), 2, FP32)) == ["bmm"]


def test_low_precision_on_a_cpu_takes_batched_products() -> None:
    model = sparsify(model_of(), "hash", num_experts=2, placement=[1])
    bf16 = torch.autocast("cpu", torch.bfloat16)
    assert list(backend_times(model, list(moe_layers(model).values()), SIZE, 2, bf16)) == ["bmm"]


def test_a_device_without_grouped_products(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise RuntimeError("grouped_mm is for bfloat16")

    monkeypatch.setattr(F, "grouped_mm", refuse)
    model = sparsify(model_of(), "expert_choice", num_experts=2, placement=[1])
    times = backend_times(model, list(moe_layers(model).values()), SIZE, 2, FP32)
    assert list(times) == ["bmm", "loop"]


def test_groups_of_more_images_than_the_batch_measures() -> None:
    model = sparsify(model_of(), "expert_choice", num_experts=2, placement=[1], group=4)
    assert backend_times(model, list(moe_layers(model).values()), SIZE, 8, FP32)


@pytest.mark.parametrize("text", ["", "[]", '{"bak": 1}', '{"backend": null}', '{"backend": "lop"}'])
def test_a_damaged_file_is_measured_anew(text: str, tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text(text)
    model = sparsify(model_of(), "hash", num_experts=2, placement=[1])
    assert autotune(model, SIZE, 2, FP32, file) == json.loads(file.read_text())["backend"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(module.os, "link", refuse)
    monkeypatch.setattr(module, "backend_times", lambda *arguments: {"bmm": 2.0, "loop": 1.0})
    file = tmp_path / "one.json"
    model = sparsify(model_of(), "hash", num_experts=2, placement=[1])
    assert autotune(model, SIZE, 2, FP32, file) == json.loads(file.read_text())["backend"] == "loop"
    assert list(tmp_path.iterdir()) == [file]


def test_the_first_of_two_processes_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "one.json"

    def meanwhile(*arguments: object) -> dict[str, float]:
        file.write_text('{"backend": "grouped"}')
        return {"bmm": 1.0, "loop": 2.0, "grouped": 3.0}

    monkeypatch.setattr(module, "backend_times", meanwhile)
    model = sparsify(model_of(), "hash", num_experts=2, placement=[1])
    assert autotune(model, SIZE, 2, FP32, file) == "grouped"
    assert list(tmp_path.iterdir()) == [file]
