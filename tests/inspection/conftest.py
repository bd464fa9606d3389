"""A run's routers as they would be seen, made by hand."""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from routerbench.inspection.seeing.seen import LayerSeen, Seen

MakeLayer = Callable[..., "LayerSeen"]
MakeSeen = Callable[..., "Seen"]


@pytest.fixture
def random() -> np.random.Generator:
    """The same draws in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def make_layer() -> MakeLayer:
    """A function from the expert of every token (N, T) to a layer in which it has a gate and a slot of 1."""
    from routerbench.inspection.seeing.seen import LayerSeen

    def make(
        expert: Any,
        num_experts: int = 3,
        name: str = "blocks.1",
        grid: tuple[int, int] = (2, 2),
        **others: Any,
    ) -> LayerSeen:
        chosen = np.asarray(expert, np.int16)
        serves = (chosen[..., None] == np.arange(num_experts)).astype(np.float32)
        known: dict[str, Any] = {
            "name": name,
            "grid": grid,
            "num_prefix": chosen.shape[1] - grid[0] * grid[1],
            "expert": chosen,
            "first": np.maximum(chosen, 0),
            "gate": np.full(chosen.shape, 0.5, np.float32),
            "slots": serves.sum(2),
            "share": serves.sum(1),
            "together": np.diag(serves.sum((0, 1))),
            "influence": np.ones(num_experts, np.float32),
            "weight_similarity": np.eye(num_experts, dtype=np.float32),
            "output_similarity": np.eye(num_experts, dtype=np.float32),
            **others,
        }
        return LayerSeen(**{field.name: known[field.name] for field in fields(LayerSeen)})

    return make


@pytest.fixture(scope="session")
def make_seen() -> MakeSeen:
    """A function from layers and labels to what was seen; without `predicted` all is right."""
    from routerbench.inspection.seeing.seen import Seen

    def make(*layers: "LayerSeen", labels: Any, predicted: Any = None, names: tuple[str, ...] = ()) -> Seen:
        truth = np.asarray(labels, np.int64)
        guess = truth if predicted is None else np.asarray(predicted, np.int64)
        return Seen(tuple(layers), truth, guess, names or tuple(f"class {i}" for i in range(truth.max() + 1)))

    return make
