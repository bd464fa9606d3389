"""Each of two ranks draws what one process draws for both, and keeps its rows."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import drop_path
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from routerbench.draws import WholeDraws

WHOLE = torch.arange(48.0).view(6, 4, 2) + 1


@pytest.mark.parametrize(
    "draw",
    [
        torch.randn_like,
        torch.rand_like,
        lambda x: torch.empty_like(x).bernoulli_(0.5),
        lambda x: x.clone().normal_(1.0, 2.0),
        lambda x: torch.zeros_like(x).exponential_(),
        lambda x: F.dropout(x, 0.5),
        lambda x: F.dropout(x.clone(), 0.5, training=True, inplace=True),
        lambda x: F.dropout(x, 0.5, training=False),
        lambda x: drop_path(x, 0.5, training=True),
        lambda x: torch.randn_like(x.permute(0, 2, 1)),  # whose memory has another order
        lambda x: checkpoint(F.dropout, x, 0.5, use_reentrant=False),
    ],
)
def test_ranks_draw_their_rows_of_one_draw(draw: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    expected, state = draw(WHOLE), torch.get_rng_state()
    shares = []
    for rank in (0, 1):
        torch.manual_seed(0)
        with WholeDraws(rank, 2):
            shares.append(draw(WHOLE.chunk(2)[rank]))
        assert torch.equal(torch.get_rng_state(), state)  # so that what is drawn next is alike too
    assert torch.equal(torch.cat(shares), expected)


def test_a_draw_of_its_own_generator_and_of_a_scalar_stay_as_they_are() -> None:
    with WholeDraws(1, 2):
        drawn = torch.empty(4).uniform_(generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        scalar = torch.rand_like(torch.tensor(1.0))
    assert torch.equal(drawn, torch.empty(4).uniform_(generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(0)
    assert torch.equal(scalar, torch.rand_like(torch.tensor(1.0)))


def test_a_checkpointed_draw_is_drawn_again_in_the_backward_pass() -> None:
    x = torch.ones(4, 3, requires_grad=True)
    torch.manual_seed(0)
    with WholeDraws(1, 2):
        y = checkpoint(lambda x: F.dropout(x * x, 0.5), x, use_reentrant=False)
        assert isinstance(y, Tensor)
        y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * y)
    assert 0 < (y == 0).sum() < 12
