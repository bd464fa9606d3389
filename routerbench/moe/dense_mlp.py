"""timm's MLP classes, read in the terms of experts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.layers import ConvMlp, GlobalResponseNormMlp, GluMlp, Mlp, SwiGLU
from timm.models.inception_next import ConvMlp as InceptionNextConvMlp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from routerbench.moe.hidden_norm import ResponseNorm, SlotNorm

CLASSES = (Mlp, ConvMlp, InceptionNextConvMlp, GlobalResponseNormMlp, GluMlp, SwiGLU)


@dataclass(frozen=True)
class DenseMlp:
    """What a dense MLP is made of; one of width D and hidden width H."""

    weights: dict[str, Tensor]
    """By the names of the parameters of `Experts`, without their first axis: w1 `(D, H)`, w2 `(H, D)`, where
    it is gated wg `(D, H)`, and those of b1, b2, bg and of a norm that it has."""
    act: nn.Module
    dropout: tuple[float, float | None]
    """Rates after the activation and after the second layer; None where it has no such layer."""
    hidden_norm: Callable[[int, int], nn.Module] | None
    """From the number of experts and H to the norm between activation and second layer."""
    channels_first: bool
    """Whether it takes `(B, D, H, W)`."""

    @property
    def width(self) -> int:
        return self.weights["w1"].shape[0]

    @property
    def hidden(self) -> int:
        return self.weights["w1"].shape[1]


def read_mlp(mlp: nn.Module) -> DenseMlp:
    """Read one of timm's MLPs, of linear layers or 1 x 1 convolutions.

    Raises ValueError, with what is wrong, for an MLP that experts cannot replace.
    """
    problem = why_not(mlp)
    if problem:
        raise ValueError(problem)
    dense: Any = mlp
    weights: dict[str, Tensor] = {}
    for name, (weight, bias) in _layers(dense).items():
        weights[f"w{name}"] = weight.flatten(1).T
        if bias is not None:
            weights[f"b{name}"] = bias
    norm, hidden_norm = _norm(dense)
    if norm is not None:
        weights |= {"hidden_norm.weight": norm.weight, "hidden_norm.bias": norm.bias}
    drops = (dense.drop1.p, dense.drop2.p) if hasattr(dense, "drop1") else (dense.drop.p, None)
    return DenseMlp(weights, dense.act, drops, hidden_norm, isinstance(dense.fc2, nn.Conv2d))


def why_not(mlp: nn.Module) -> str | None:
    """Why experts cannot stand in for this MLP, in one line; None when they can."""
    name = type(mlp).__name__
    if type(mlp) not in CLASSES:
        return _why_no_class(mlp)
    dense: Any = mlp
    width, out = _layers(dense)["1"][0].shape[1], dense.fc2.weight.shape[0]
    if out != width:
        return f"experts cannot replace this {name}: it changes the width from {width} to {out}"
    norm = getattr(dense, "norm", None)
    if isinstance(norm, nn.Identity | None):
        return None
    if "ConvMlp" in name:
        return f"experts cannot replace this {name}: it has a norm before its activation"
    if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
        return (
            f"experts cannot replace this {name}: the {type(norm).__name__} between its layers is no "
            "LayerNorm with weights and biases"
        )
    return None


def _why_no_class(mlp: nn.Module) -> str:
    name = type(mlp).__name__
    for inner, module in mlp.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            return f"experts cannot replace an MLP of class {name}: its convolution {inner} mixes positions"
    if any(isinstance(module, _BatchNorm) for module in mlp.modules()):
        return f"experts cannot replace an MLP of class {name}: it has batch norms"
    if isinstance(getattr(mlp, "norm", None), nn.LayerNorm):
        return (
            f"experts cannot replace an MLP of class {name}: its norm stands before its first layer, where a "
            "router would not see it"
        )
    return (
        f"experts cannot replace an MLP of class {name}: "
        "only timm's Mlp, ConvMlp, GlobalResponseNormMlp, GluMlp, SwiGLU"
    )


def _layers(mlp: Any) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Weight `(out, in)` and bias of the first, the second and, where there is one, the gating layer."""
    second = {"2": (mlp.fc2.weight, mlp.fc2.bias)}
    if isinstance(mlp, SwiGLU):
        gate, first = mlp.fc1_g, mlp.fc1_x
        return {"1": (first.weight, first.bias), "g": (gate.weight, gate.bias), **second}
    if not isinstance(mlp, GluMlp):
        return {"1": (mlp.fc1.weight, mlp.fc1.bias), **second}
    weights = mlp.fc1.weight.chunk(2)
    biases = (None, None) if mlp.fc1.bias is None else mlp.fc1.bias.chunk(2)
    names = ("1", "g") if mlp.gate_last else ("g", "1")
    return {**dict(zip(names, zip(weights, biases, strict=True), strict=True)), **second}


def _norm(mlp: Any) -> tuple[Any, Callable[[int, int], nn.Module] | None]:
    """The norm between activation and second layer, and what makes those of experts."""
    if hasattr(mlp, "grn"):
        return mlp.grn, partial(ResponseNorm, eps=mlp.grn.eps)
    norm = getattr(mlp, "norm", None)
    if isinstance(norm, nn.LayerNorm):
        return norm, partial(SlotNorm, eps=norm.eps)
    return None, None
