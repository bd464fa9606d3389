"""One pass over the test images of a run, of which is kept what its routers did."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.evaluate import predictions
from routerbench.inspection.measures.similarity import of_outputs, of_weights
from routerbench.inspection.routing_of import by_image
from routerbench.inspection.seeing.seen import LayerSeen, Seen
from routerbench.layout import Layout, layouts_seen
from routerbench.load import FinishedRun
from routerbench.maps import expert_of
from routerbench.moe.layer import MoE
from routerbench.moe.plan import Plan, SoftPlan, SparsePlan
from routerbench.moe.surgery import moe_layers

OF_TOKENS = {"expert": np.int16, "first": np.int16, "gate": np.float16, "slots": np.float16}


@dataclass
class _Looked:
    """What of one layer is kept while the images go through."""

    of_images: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    sums: dict[str, Float[Tensor, "..."]] = field(default_factory=dict)
    num_tokens: int = 0

    def add(self, plan: Plan, num_images: int) -> None:
        """What the plan of a batch of so many images tells."""
        gate, first = plan.gates.max(-1)
        of_tokens = {"expert": expert_of(plan), "first": first, "gate": gate, "slots": plan.slots_taken}
        for name, values in of_tokens.items():
            self._keep(name, by_image(values, num_images).astype(OF_TOKENS[name]))
        self._keep("share", by_image(plan.expert_share, num_images).sum(1, dtype=np.float32))
        serves = plan.serves.flatten(0, 1).to(gate.dtype)
        for name, total in {"together": serves.T @ serves, "influence": _influence(plan)}.items():
            self.sums[name] = total.double() + self.sums.get(name, 0)
        self.num_tokens += gate.numel()

    def seen(self, name: str, layout: Layout, layer: MoE, tokens: Float[Tensor, "n D"]) -> LayerSeen:
        """All of it as arrays."""
        influence = self.sums["influence"] / self.num_tokens
        return LayerSeen(
            name,
            layout.grid,
            layout.num_prefix,
            **{kept: np.concatenate(parts) for kept, parts in self.of_images.items()},
            together=self.sums["together"].float().cpu().numpy(),
            influence=influence.float().cpu().numpy(),
            weight_similarity=of_weights(layer.experts),
            output_similarity=of_outputs(layer.experts, tokens),
        )

    def _keep(self, name: str, values: NDArray[Any]) -> None:
        self.of_images.setdefault(name, []).append(values)


@torch.no_grad()
def look(run: FinishedRun, tokens_sampled: int = 512) -> Seen:
    """Send the test images of a run through its model, as it is set now.

    `tokens_sampled`: of how many tokens that come to a layer the outputs of all its experts are compared.
    Raises ValueError for a dense model, and for one whose layers see an image in parts.
    """
    layers = moe_layers(run.model)
    if not layers:
        raise ValueError(f"path={run.folder} is of a dense model, which has no router to look at")
    looked = {name: _Looked() for name in layers}
    share = tokens_sampled / len(run.test.labels)
    labels, predicted = [], []
    with layouts_seen(run.model) as layouts, _tokens_seen(layers, share) as tokens:
        for logits, truth in predictions(run.model, run.batches(), run.device, run.autocast, iter):
            labels.append(truth.cpu().numpy())
            predicted.append(logits.argmax(1).cpu().numpy())
            for name, layer in layers.items():
                assert layer.routing is not None
                looked[name].add(layer.routing.plan, len(truth))
    found = (
        looked[name].seen(name, layouts[name], layer, torch.cat(tokens[name])[:tokens_sampled])
        for name, layer in layers.items()
    )
    return Seen(tuple(found), np.concatenate(labels), np.concatenate(predicted), run.test.class_names)


def _influence(plan: Plan) -> Float[Tensor, "E"]:
    """The weights of all slots of each expert."""
    if isinstance(plan, SoftPlan):
        return plan.combine_weight.sum((0, 1, 3))
    assert isinstance(plan, SparsePlan)
    return plan.weight.sum((0, 2))


@contextmanager
def _tokens_seen(layers: dict[str, MoE], per_image: float) -> Iterator[dict[str, list[Tensor]]]:
    """Inside, tokens of those that come to each layer, drawn at random but always the same."""
    tokens: dict[str, list[Tensor]] = {name: [] for name in layers}
    random = torch.Generator().manual_seed(0)

    def see_tokens(name: str) -> Any:
        def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            number = -(-per_image * len(inputs[0]) // 1)
            drawn = torch.randint(len(rows), (int(number),), generator=random)
            tokens[name].append(rows[drawn.to(rows.device)].float())

        return see

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(see_tokens(name)).remove)
        yield tokens
