"""Measurements written by hand, so that tables and plots are tested on known numbers."""

import copy
from typing import Any

import pytest

LAYER: dict[str, Any] = {
    "case": "layer token_choice ti 6272 tokens E8 fp32 group=batch",
    "kind": "layer",
    "size": "ti",
    "tokens": 6272,
    "num_experts": 8,
    "precision": "fp32",
    "router": "token_choice",
    "group": "batch",
    "expert_gradient_bytes": 2**20,
    "contestants": [
        {"name": "dense", "flops": 12e9, "peak_bytes": 3 * 2**20, "seconds": [0.1, 0.2, 0.4]},
        {"name": "bmm", "flops": 12e9, "peak_bytes": 5 * 2**20, "seconds": [0.11, 0.24, 0.6]},
        {"name": "loop", "refused": "it has a norm"},
        {"name": "mine:layer", "failed": "RuntimeError: boom"},
        {"name": "GEMM", "flops": 2e9, "peak_bytes": 2**20, "seconds": [0.01, 0.02, 0.03]},
    ],
}
ROUTER: dict[str, Any] = {
    "case": "router ti 6272 tokens E8 fp32 group=batch",
    "kind": "router",
    "size": "ti",
    "tokens": 6272,
    "num_experts": 8,
    "precision": "fp32",
    "routers": ["expert_choice", "soft"],
    "group": "batch",
    "contestants": [
        {"name": "dense", "flops": 12e9, "peak_bytes": 3 * 2**20, "seconds": [0.1, 0.1]},
        {"name": "expert_choice", "flops": 1e6, "peak_bytes": 2**19, "seconds": [0.01, 0.01]},
        {"name": "soft", "flops": 1e8, "peak_bytes": 2**21, "seconds": [0.2, 0.2]},
    ],
}
MODEL: dict[str, Any] = {
    "case": "model vit token_choice 8 images E8 bf16 group=image",
    "kind": "model",
    "model": "vit",
    "image_size": 224,
    "batch_size": 8,
    "num_experts": 8,
    "precision": "bf16",
    "router": "token_choice",
    "group": "image",
    "placements": ["last_2"],
    "contestants": [
        {"name": "dense", "flops": 1e12, "peak_bytes": 2**30, "seconds": [2.0, 2.0]},
        {"name": "last_2", "flops": 1e12, "peak_bytes": 2**30, "seconds": [2.2, 2.2]},
    ],
}
MEMORY: dict[str, Any] = {
    **{name: value for name, value in LAYER.items() if name != "contestants"},
    "case": "memory token_choice ti 12544 tokens E32 fp32 group=batch",
    "kind": "memory",
    "tokens": 12544,
    "num_experts": 32,
    "contestants": [
        {"name": "dense", "flops": 24e9, "peak_bytes": 7 * 2**20},
        {"name": "bmm", "flops": 24e9, "peak_bytes": 10 * 2**20},
    ],
}


@pytest.fixture
def results() -> dict[str, Any]:
    """What a measurement of one case of each kind has written."""
    return copy.deepcopy(
        {
            "schema": 1,
            "provenance": {
                "commit": "0123456789abcdef+changes",
                "versions": {"routerbench": "0.1.0", "torch": "2.14.1"},
                "device": "A CPU, 1 threads",
                "command": "routerbench bench",
            },
            "threads": 1,
            "clock": "CPU time",
            "repeats": 3,
            "warmup_rounds": 1,
            "cases": [LAYER, ROUTER, MODEL, MEMORY],
        }
    )
