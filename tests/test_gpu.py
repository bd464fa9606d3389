"""What a run finds on a GPU: layers as on the CPU, and records that repeat."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.testing import assert_close

from routerbench.bench.command import bench
from routerbench.bench.options import add_options, checked
from routerbench.build import build_router, router_names
from routerbench.config import conf_dir
from routerbench.costs import MemoryMeter
from routerbench.moe.experts import Experts
from routerbench.moe.layer import MoE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
WIDTH, HIDDEN, NUM_EXPERTS, NUM_TOKENS = 8, 16, 4, 12


def layer_of(router: str, backend: str) -> MoE:
    """A layer whose router draws nothing."""
    torch.manual_seed(0)
    has_noise = "noise_std" in (conf_dir() / "router" / f"{router}.yaml").read_text()
    settings = {"noise_std": 0.0} if has_noise else {}
    experts = Experts(NUM_EXPERTS, WIDTH, HIDDEN)
    layer = MoE(build_router(router, WIDTH, NUM_EXPERTS, **settings), experts, backend=backend)
    layer(torch.randn(1, NUM_TOKENS, WIDTH))  # gives phi its shape
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def computed(layer: MoE, x: Tensor, device: torch.device) -> dict[str, Tensor]:
    """The output, the losses, and every gradient of their sum."""
    x = x.detach().to(device).requires_grad_()  # a leaf of its own
    y = layer.to(device)(x)
    assert layer.routing is not None
    found = {"y": y, **layer.routing.losses}
    torch.stack([value.square().sum() for value in found.values()]).sum().backward()
    found |= {f"gradient of {name}": p.grad for name, p in (*layer.named_parameters(), ("x", x))}
    return {name: value.detach().cpu() for name, value in found.items() if value is not None}


@pytest.mark.parametrize("backend", ["bmm", "one_hot"])
@pytest.mark.parametrize("router", [name for name in router_names() if name != "dense"])
def test_layers_compute_what_they_do_on_the_cpu(router: str, backend: str) -> None:
    layer, x = layer_of(router, backend).double(), torch.randn(3, NUM_TOKENS, WIDTH, dtype=torch.float64)
    expected = computed(layer, x, CPU)
    layer.zero_grad()
    found = computed(layer, x, GPU)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Gates are in single precision.
        assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_grouped_products_are_those_of_bmm() -> None:
    x = torch.randn(3, NUM_TOKENS, WIDTH)
    one, other = (layer_of("token_choice", backend) for backend in ("bmm", "grouped"))
    with torch.autocast("cuda", torch.bfloat16):
        expected, found = computed(one, x, GPU), computed(other, x, GPU)
    for name, value in expected.items():
        assert_close(found[name], value, rtol=0.05, atol=0.1, msg=lambda text, name=name: f"{name}: {text}")


def test_a_peak_does_not_hang_on_what_ran_before() -> None:
    def peak() -> float | None:
        meter = MemoryMeter.start(GPU)
        weights = torch.ones(64, 64, device=GPU, requires_grad=True)
        (weights @ weights).sum().backward()  # for which cuBLAS takes room that it keeps
        return meter.peak_gib()

    assert peak() == peak()


# Two runs of 22 steps in one process, in which cuBLAS is not used before its workspace is configured.
TWICE = """
import sys
from routerbench.commands import train
folders, words = sys.argv[1:3], sys.argv[3:]
for folder in folders:
    assert train.train([*words, f"runtime.results={folder}"]) == 0
"""


def test_runs_repeat_and_their_records_are_of_the_gpu(tmp_path: Path) -> None:
    words = ["data=digits", "augment=crop_flip", "epochs=1", "router=token_choice", "precision=bf16"]
    words += ["runtime.device=cuda", "runtime.deterministic=true", "runtime.wandb=disabled"]
    command = [sys.executable, "-c", TWICE, str(tmp_path / "one"), str(tmp_path / "other"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    one, other = (record_in(tmp_path / name) for name in ("one", "other"))
    assert one["metrics"] == other["metrics"]
    assert one["provenance"]["device"] == torch.cuda.get_device_name()
    assert one["cost"]["peak_memory_gib"] == other["cost"]["peak_memory_gib"] > 0


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_benchmark_is_timed_by_the_events_of_the_gpu(device: str, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    words = f"layer router --sizes ti --tokens 196 --experts 2 --precision bf16 --repeats 1 --device {device}"
    options = checked(parser.parse_args([*words.split(), "--json", str(tmp_path / "measured.json")]))
    assert bench(options, "routerbench bench", Console(quiet=True))
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert measured["clock"] == "CUDA events"
    assert measured["provenance"]["device"] == torch.cuda.get_device_name()


def record_in(results: Path) -> dict[str, Any]:
    (file,) = results.glob("runs/*/record.json")
    return json.loads(file.read_text())
