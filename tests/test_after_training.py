"""`eval` and `inspect` of runs in low precision, and on a GPU where there is one."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import routerbench as rb
from routerbench.cli import main

WORDS = [
    *("train", "-m", "router=token_choice,soft", "precision=bf16", "data=digits", "augment=none", "epochs=1"),
    *("num_experts=2", "batch_size=256", "placement=[0,1]", "runtime.wandb=disabled", "runtime.backend=bmm"),
    *("+model.arguments.depth=2", "+model.arguments.embed_dim=16", "+model.arguments.num_heads=2"),
]
FEW = {
    "eval": [
        *("--capacity-factor", "0.5,dropless", "--groupings", "2", "--group", "image,8"),
        *("--replace", "frozen,drop_first"),
    ],
    "inspect": ["--permutations", "5", "--most", "2"],
}


def ended(*words: str) -> int:
    """The exit code of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["routerbench", *words])
        with pytest.raises(SystemExit) as end:
            main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs in bfloat16, by their routers."""
    results = tmp_path_factory.mktemp("results")
    assert ended(*WORDS, f"runtime.results={results}") == 0
    return {path.name.split("-")[2]: path for path in (results / "runs").iterdir()}


def numbers_in(found: Any) -> list[float]:
    """All numbers in a JSON document."""
    if isinstance(found, dict | list):
        return [
            number
            for part in (found.values() if isinstance(found, dict) else found)
            for number in numbers_in(part)
        ]
    return [found] if isinstance(found, int | float) else []


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ],
)
@pytest.mark.parametrize("command", ["eval", pytest.param("inspect", marks=pytest.mark.slow)])
def test_the_commands_in_low_precision(command: str, device: str, runs: dict[str, Path]) -> None:
    before = {router: json.loads((run / "record.json").read_text()) for router, run in runs.items()}
    for router, run in runs.items():
        few = [] if (command, router) == ("eval", "soft") else FEW[command]  # soft lets change nothing
        assert ended(command, str(run), *few, "--device", device) == 0
    for router, run in runs.items():
        record = json.loads((run / "record.json").read_text())
        for name, value in before[router].items():
            assert name == "evaluations" or record[name] == value
        assert np.isfinite(numbers_in(record["evaluations"])).all()


@pytest.mark.parametrize("router", ["token_choice", "soft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_routing_of_a_model_in_low_precision(router: str, dtype: torch.dtype, runs: dict[str, Path]) -> None:
    run = rb.open_run(runs[router], device="cpu")
    images, _ = next(run.batches(np.arange(3)))
    with run.autocast:
        found = rb.routing_of(run.model.to(dtype), images)
    for layer in found.values():
        np.testing.assert_allclose(layer.gates.sum(-1), 1, rtol=1e-2)
        assert layer.share.dtype.kind == "f"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("router", ["token_choice", "soft"])
def test_a_gpu_routes_as_the_cpu(router: str, runs: dict[str, Path]) -> None:
    found = []
    for device in ("cpu", "cuda"):
        run = rb.open_run(runs[router], device=device)
        images, _ = next(run.batches(np.arange(8)))
        found.append(rb.routing_of(run.model, images))
    for one, other in zip(*(layers.values() for layers in found), strict=True):
        np.testing.assert_allclose(one.gates, other.gates, atol=1e-3)
        assert (one.expert == other.expert).mean() > 0.99
