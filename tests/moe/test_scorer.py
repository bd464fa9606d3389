import math
import re
from typing import Any

import pytest
import torch

from routerbench.build import build_router
from routerbench.moe.scorer import CosineScorer, DistanceScorer, LinearScorer, make_scorer


def test_logits_by_hand() -> None:
    scorer = LinearScorer(width=2, num_experts=3, noise_std=0.0)
    scorer.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])})
    logits = scorer(torch.tensor([[[2.0, 5.0]]]))
    assert logits.clean.tolist() == [[[2, 5, -3]]]
    assert logits.noisy is logits.clean
    assert logits.noise_std == 0


def test_noise_is_drawn_in_training_alone_and_over_the_number_of_experts() -> None:
    scorer = LinearScorer(width=2, num_experts=4, noise_std=2.0)
    tokens = torch.randn(2, 5000, 2)
    torch.manual_seed(3)
    logits = scorer(tokens)
    torch.manual_seed(3)
    noise = torch.randn(2, 5000, 4)
    assert logits.noise_std == 0.5
    torch.testing.assert_close(logits.noisy, logits.clean + 0.5 * noise)
    assert scorer.eval()(tokens).noise_std == 0
    assert torch.equal(scorer(tokens).noisy, logits.clean)


def test_weights_start_as_lecun_has_it() -> None:
    # Standard deviation one over the root of the width.
    weight = LinearScorer(width=400, num_experts=200, noise_std=0.0).weight
    assert weight.shape == (200, 400)
    assert weight.std().item() == pytest.approx(0.05, rel=0.02)


def test_noise_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match=r"^noise_std=-1.0 must be a number of at least 0$"):
        LinearScorer(width=2, num_experts=2, noise_std=-1.0)


def codes(
    kind: type[CosineScorer] | type[DistanceScorer], temperature: float
) -> CosineScorer | DistanceScorer:
    """A gate that compares the first two of three entries with (1, 0), (0, 2) and (-3, -3)."""
    scorer = kind(width=3, num_experts=3, noise_std=0.0, projection_width=2, temperature=temperature)
    state = {
        "projection": torch.tensor([[1.0, 0, 0], [0, 1, 0]]),
        "codes": torch.tensor([[1.0, 0], [0, 2], [-3, -3]]),
        "log_temperature": torch.tensor(temperature).log(),
    }
    scorer.load_state_dict(state)
    return scorer


def test_cosine_by_hand() -> None:
    # The token (3, 4) has length 5.
    logits = codes(CosineScorer, 0.5)(torch.tensor([[[3.0, 4.0, 9.0]]])).clean
    expected = torch.tensor([[[0.6, 0.8, -1.4 / math.sqrt(2)]]]) / 0.5
    torch.testing.assert_close(logits, expected)


def test_distance_by_hand() -> None:
    logits = codes(DistanceScorer, 2.0)(torch.tensor([[[3.0, 4.0, 9.0]]])).clean
    torch.testing.assert_close(logits, -torch.tensor([[[4.0 + 16, 9 + 4, 36 + 49]]]) / 2)


@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_codes_projection_and_temperature_are_learned(kind: str) -> None:
    scorer = make_scorer(kind, 8, 6, noise_std=0.0, projection_width=None, temperature=None)
    shapes = {name: tuple(parameter.shape) for name, parameter in scorer.named_parameters()}
    # Half as many dimensions as experts (Chi et al. 2022).
    assert shapes == {"projection": (3, 8), "codes": (6, 3), "log_temperature": ()}
    assert scorer.get_parameter("log_temperature").exp().item() == pytest.approx(0.3)
    scorer(torch.randn(2, 5, 8)).clean.square().sum().backward()
    for name, parameter in scorer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    scorer = make_scorer(kind, 4, 3, noise_std=0.0, projection_width=2, temperature=0.5).double()
    tokens = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    names = list(dict(scorer.named_parameters()))

    def logits(tokens: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(scorer, state, tokens).clean

    assert torch.autograd.gradcheck(logits, (tokens, *scorer.parameters()))


@pytest.mark.parametrize("router", ["token_choice", "sinkhorn_expert_choice", "sparse_token_choice"])
@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_every_sparse_router_takes_every_gate(router: str, kind: str) -> None:
    plan = build_router(router, 8, 4, scorer=kind, projection_width=3)(torch.randn(2, 12, 8)).plan
    assert plan.gates.isfinite().all()
    assert plan.load.sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorer": "dot"}, "scorer=dot is not one of: linear, cosine, l2"),
        ({"projection_width": 4}, "projection_width=4 means nothing to scorer=linear: leave it out"),
        ({"temperature": 0.5}, "temperature=0.5 means nothing to scorer=linear: leave it out"),
        (
            {"scorer": "cosine", "projection_width": 0},
            "projection_width=0 must be a whole number of at least 1",
        ),
        ({"scorer": "l2", "temperature": 0.0}, "temperature=0.0 must be a number above 0"),
    ],
)
def test_gates_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_router("token_choice", 8, 4, **settings)
