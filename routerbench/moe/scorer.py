"""Scorers: from tokens to the logits of the gate."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.weight_init import lecun_normal_
from torch import Tensor, nn

from routerbench.checks import check_count, check_not_negative, check_one_of, check_positive

SCORERS = ("linear", "cosine", "l2")


@dataclass(frozen=True)
class Logits:
    """Raw scores of every token for every expert, without and with the noise of training."""

    clean: Float[Tensor, "G S E"]
    noisy: Float[Tensor, "G S E"]
    noise_std: float
    """Standard deviation of the noise as it was added; 0 when there is none."""


def gates_of(logits: Float[Tensor, "G S E"]) -> Float[Tensor, "G S E"]:
    """Softmax over experts."""
    return experts_first(logits).softmax(0).permute(1, 2, 0)


def experts_first(scores: Float[Tensor, "G S E"]) -> Float[Tensor, "E G S"]:
    """The same, contiguous: experts are few and tokens many, and long vectors are much faster than short."""
    return scores.permute(2, 0, 1).contiguous()


class Scorer(nn.Module, ABC):
    """Scores tokens for experts, in the precision of the tokens, which a Router makes at least float32.

    In training it adds `noise_std / num_experts` times standard normal noise (V-MoE).
    """

    def __init__(self, num_experts: int, noise_std: float) -> None:
        super().__init__()
        check_not_negative("noise_std", noise_std)
        self.noise_std = noise_std / num_experts

    @abstractmethod
    def score(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S E"]:
        """The logits without noise."""

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Logits:
        """The logits, with noise in training."""
        scores = self.score(tokens)
        clean = experts_first(scores).permute(1, 2, 0)
        if not self.training or self.noise_std == 0:
            return Logits(clean, clean, 0.0)
        # The noise is drawn token by token, which is much faster where tokens are contiguous.
        noisy = torch.add(clean, torch.randn_like(scores), alpha=self.noise_std)
        return Logits(clean, noisy, self.noise_std)


class LinearScorer(Scorer):
    """The linear gate `x W`, without bias; in a ConvNeXt it is the 1 x 1 convolution."""

    def __init__(self, width: int, num_experts: int, noise_std: float) -> None:
        super().__init__(num_experts, noise_std)
        self.weight = nn.Parameter(torch.empty(num_experts, width))
        lecun_normal_(self.weight)

    def score(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S E"]:
        """Inner products with the experts' weights."""
        return F.linear(tokens, self.weight.to(tokens.dtype))


class CodeScorer(Scorer, ABC):
    """A gate that projects tokens to a low dimension and compares them with a learned code of each expert.

    The temperature is learned too, by its logarithm, which keeps it positive.
    """

    def __init__(
        self, width: int, num_experts: int, noise_std: float, projection_width: int, temperature: float
    ) -> None:
        super().__init__(num_experts, noise_std)
        check_count("projection_width", projection_width)
        check_positive("temperature", temperature)
        self.projection = nn.Parameter(torch.empty(projection_width, width))
        self.codes = nn.Parameter(torch.empty(num_experts, projection_width))
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())
        lecun_normal_(self.projection)
        lecun_normal_(self.codes)

    def score(self, tokens: Float[Tensor, "G S D"]) -> Float[Tensor, "G S E"]:
        """How near the projected tokens are to the codes, over the temperature."""
        projected = F.linear(tokens, self.projection.to(tokens.dtype))
        nearness = self.compare(projected, self.codes.to(tokens.dtype))
        return nearness / self.log_temperature.to(tokens.dtype).exp()

    @abstractmethod
    def compare(
        self, projected: Float[Tensor, "G S R"], codes: Float[Tensor, "E R"]
    ) -> Float[Tensor, "G S E"]:
        """Nearness of each projected token, of width R, to each code."""


class CosineScorer(CodeScorer):
    """Cosine of the projected token and the codes (Chi et al. 2022)."""

    def compare(
        self, projected: Float[Tensor, "G S R"], codes: Float[Tensor, "E R"]
    ) -> Float[Tensor, "G S E"]:
        """Inner products of vectors of length 1."""
        return F.linear(F.normalize(projected, dim=-1), F.normalize(codes, dim=-1))


class DistanceScorer(CodeScorer):
    """Negative squared Euclidean distance of the projected token to the codes (Videau et al. 2025)."""

    def compare(
        self, projected: Float[Tensor, "G S R"], codes: Float[Tensor, "E R"]
    ) -> Float[Tensor, "G S E"]:
        """Squares written out, so that no (G, S, E, R) difference is built."""
        lengths = projected.square().sum(-1, keepdim=True) + codes.square().sum(-1)
        return 2 * F.linear(projected, codes) - lengths


def make_scorer(
    kind: str,
    width: int,
    num_experts: int,
    *,
    noise_std: float,
    projection_width: int | None,
    temperature: float | None,
) -> Scorer:
    """The scorer of this kind; raises ValueError for another, and for settings that mean nothing to it.

    Without a `projection_width` it is half the number of experts, without a `temperature` it starts at 0.3
    (Chi et al. 2022).
    """
    check_one_of("scorer", kind, SCORERS)
    if kind == "linear":
        for name, value in (("projection_width", projection_width), ("temperature", temperature)):
            if value is not None:
                raise ValueError(f"{name}={value} means nothing to scorer=linear: leave it out")
        return LinearScorer(width, num_experts, noise_std)
    method = CosineScorer if kind == "cosine" else DistanceScorer
    projection_width = max(1, num_experts // 2) if projection_width is None else projection_width
    return method(
        width, num_experts, noise_std, projection_width, 0.3 if temperature is None else temperature
    )
