"""A mode changes what it names and nothing else, and is over when its block is."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from routerbench.build import build_backbone, router_names, sparsify
from routerbench.modes import Mode, changeable, evaluated_in, is_name
from routerbench.moe.surgery import moe_layers

TOKEN_CHOICE = ("token_choice", "sigmoid_bias", "sinkhorn_token_choice", "sparse_token_choice")
OF_TOKEN_CHOICE = {"capacity_factor", "dropless", "top_k", "batch_priority", "group"}
EVERY = Mode(capacity_factor=0.25, top_k=2, batch_priority=True, group=2)


@pytest.mark.parametrize(
    "mode", [Mode(), EVERY, Mode(dropless=True, group="image"), Mode(capacity_factor=1e-05)]
)
def test_every_mode_has_a_name(mode: Mode) -> None:
    assert is_name(mode.name)


@pytest.mark.parametrize(
    "text", ["", "../trained", "trained/..", "top_k=../1", "top_k=1 ../x", "top_k=", "seed=1", "trained\n"]
)
def test_what_no_mode_is_called(text: str) -> None:
    assert not is_name(text)


def model_with(router: str, group: str | int = "image", **settings: Any) -> nn.Module:
    model = build_backbone("pocket_vit", 10, 32, depth=2, embed_dim=16, num_heads=2)
    return sparsify(model, router, 4, [0, 1], group, **settings).eval()


def settings_of(model: nn.Module) -> Iterator[dict[str, Any]]:
    for layer in moe_layers(model).values():
        router = {name: value for name, value in vars(layer.router).items() if name[0] != "_"}
        yield {**router, "images_per_group": layer.images_per_group}


@torch.no_grad()
def logits(model: nn.Module, mode: Mode, images: Tensor) -> Tensor:
    with evaluated_in(model, mode):
        return model(images)


def test_the_name_is_what_would_be_typed() -> None:
    assert Mode().name == "trained"
    assert Mode(capacity_factor=0.25, batch_priority=True).name == "capacity_factor=0.25 batch_priority=true"
    assert Mode(dropless=True, group=8).name == "dropless=true group=8"


def test_what_can_be_changed() -> None:
    assert changeable(model_with("token_choice")) == OF_TOKEN_CHOICE
    assert changeable(model_with("expert_choice")) == {"capacity_factor", "dropless", "group"}
    assert changeable(model_with("soft")) == frozenset()
    assert changeable(build_backbone("pocket_vit", 10, 32)) == frozenset()


@pytest.mark.parametrize("router", [name for name in router_names() if name != "dense"])
def test_every_mode_that_a_router_has_works_and_is_undone(router: str) -> None:
    model, images = model_with(router), torch.randn(4, 3, 32, 32)
    before, expected = list(settings_of(model)), logits(model, Mode(), images)
    for name, value in {**EVERY.changes, "dropless": True}.items():
        if name in changeable(model):
            assert logits(model, Mode(**{name: value}), images).isfinite().all()
            assert list(settings_of(model)) == before
    assert torch.equal(logits(model, Mode(), images), expected)


def test_a_mode_is_undone_after_an_error_too() -> None:
    model = model_with("token_choice")
    before = list(settings_of(model))
    with pytest.raises(AssertionError, match="doesn't match model"), evaluated_in(model, EVERY):
        model(torch.zeros(1, 3, 7, 7))
    assert list(settings_of(model)) == before


def test_a_mode_that_fails_half_way_is_undone() -> None:
    # The second layer's capacity cannot be replaced once the first one's has been.
    model = model_with("token_choice")
    first, second = moe_layers(model).values()
    del second.router.capacity
    before = first.router.capacity
    with pytest.raises(AttributeError), evaluated_in(model, Mode(capacity_factor=0.5)):
        pass
    assert first.router.capacity == before


@pytest.mark.parametrize(
    ("router", "mode", "message"),
    [
        (
            "expert_choice",
            Mode(top_k=2),
            "top_k=2 cannot be changed in a trained ExpertChoice: only capacity_factor, dropless, group can "
            "be",
        ),
        (
            "soft",
            Mode(group=8),
            "group=8 cannot be changed in a trained Soft: nothing of it can be",
        ),
        ("token_choice", Mode(top_k=5), "top_k=5 is more than num_experts=4: give at most that"),
        ("token_choice", Mode(group=0), "group=0 is neither image nor a number of images"),
        (
            "token_choice",
            Mode(capacity_factor=-1.0),
            "capacity_factor_eval=-1.0 must be a number above 0",
        ),
    ],
)
def test_what_is_refused(router: str, mode: Mode, message: str) -> None:
    model = model_with(router)
    before = list(settings_of(model))
    with pytest.raises(ValueError) as caught, evaluated_in(model, mode):  # noqa: PT011, the whole text below
        pass
    assert str(caught.value) == message
    assert list(settings_of(model)) == before


def test_a_dense_model_has_no_mode() -> None:
    model = build_backbone("pocket_vit", 10, 32)
    with (
        pytest.raises(ValueError, match=r"^dropless=true cannot be changed in a trained dense run: nothing"),
        evaluated_in(model, Mode(dropless=True)),
    ):
        pass
    with evaluated_in(model, Mode()) as same:
        assert same is model


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("router", TOKEN_CHOICE)
def test_where_nothing_is_dropped_neither_order_nor_capacity_matters(router: str, top_k: int) -> None:
    model, images = model_with(router), torch.randn(8, 3, 32, 32)
    expected = logits(model, Mode(dropless=True, top_k=top_k), images)
    for group in ("image", 4):
        for mode in (
            Mode(capacity_factor=4.0, top_k=top_k, group=group),
            Mode(capacity_factor=4.0, top_k=top_k, batch_priority=True, group=group),
            Mode(dropless=True, top_k=top_k, batch_priority=True, group=group),
        ):
            if router.startswith(("sinkhorn", "sparse")) and group != "image":
                continue  # their plans are of the tokens of a group
            assert_close(logits(model, mode, images), expected, atol=1e-5, rtol=0, msg=mode.name)


QUEUED = Mode(capacity_factor=0.3, batch_priority=True)
ALONE = [
    *((name, Mode()) for name in router_names() if name != "dense"),
    ("expert_choice", Mode(capacity_factor=0.3)),
    *((name, QUEUED) for name in TOKEN_CHOICE),
]


@pytest.mark.parametrize(("router", "mode"), ALONE, ids=[f"{name} {mode.name}" for name, mode in ALONE])
def test_with_a_group_for_each_image_neither_batch_nor_order_matters(router: str, mode: Mode) -> None:
    model, images = model_with(router), torch.randn(12, 3, 32, 32)
    whole = logits(model, mode, images)
    order = torch.randperm(12)
    assert_close(logits(model, mode, images[order]), whole[order], atol=1e-5, rtol=0)
    parts = torch.cat([logits(model, mode, part) for part in images.split(5)])
    assert_close(parts, whole, atol=1e-5, rtol=0)
    assert torch.equal(parts.argmax(1), whole.argmax(1))


def test_a_capacity_of_training_that_is_a_number_gives_way_to_a_factor() -> None:
    model = model_with("token_choice", capacity=3)
    with torch.no_grad(), evaluated_in(model, Mode(capacity_factor=4.0)):
        model(torch.randn(2, 3, 32, 32))
    for layer in moe_layers(model).values():
        assert layer.routing is not None
        assert layer.routing.plan.num_slots == 17
