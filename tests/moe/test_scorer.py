import pytest
import torch

from routerbench.moe.scorer import LinearScorer


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
