"""Replaced routers: what is lost, which replacements a run can have, and that its own always come back."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from routerbench.evaluations.figures.routers import replacement_picture, replacement_rows
from routerbench.evaluations.measurement import Asked
from routerbench.evaluations.names import REPLACEMENTS
from routerbench.evaluations.routers import study as routers
from routerbench.evaluations.routers.replacements import impossible, standing_in
from routerbench.evaluations.routers.rescored import replaced
from routerbench.evaluations.routers.scene import Other, Scene, take
from routerbench.load import FinishedRun
from routerbench.moe.plan import SparsePlan
from routerbench.moe.surgery import moe_layers

Trained = Callable[..., FinishedRun]


def results(run: FinishedRun, *names: str, others: tuple[FinishedRun, ...] = ()) -> dict[str, Any]:
    asked = Asked(replacements=names, others=others)
    return {measurement.mode: measurement.take() for measurement in routers.measurements(run, asked)}


def test_points_lost_are_paired_by_image() -> None:
    trained, replacement = np.array([1, 1, 1, 0], dtype=bool), np.array([1, 0, 0, 1], dtype=bool)
    found = routers.lost(trained, replacement)
    assert found["top1_lost_points"] == pytest.approx(25)
    # Agresti and Min: 2.5 and 1.5 of 6 images, z = 1.96.
    centre, half = 100 / 6, 195.996 * np.sqrt((4 / 6 - 1 / 36) / 6)
    assert found["top1_lost_points_low"] == pytest.approx(centre - half, rel=1e-4)
    assert found["top1_lost_points_high"] == pytest.approx(centre + half, rel=1e-4)


def test_where_no_image_differs_the_interval_is_not_empty() -> None:
    found = routers.lost(right := np.ones(9, dtype=bool), right)
    assert found["top1_lost_points_low"] < found["top1_lost_points"] == 0 < found["top1_lost_points_high"]


@pytest.mark.parametrize(
    "router",
    [
        "token_choice",
        pytest.param("expert_choice", marks=pytest.mark.slow),
        pytest.param("soft", marks=pytest.mark.slow),
        "hash",
    ],
)
def test_every_possible_replacement(router: str, trained: Trained) -> None:
    run, other = trained(f"router={router}"), trained(f"router={router}", "seed=1")
    own = {name: layer.router for name, layer in moe_layers(run.model).items()}
    its = {name: layer.router for name, layer in moe_layers(other.model).items()}
    found = results(run, others=(run, other, trained("router=dense")))
    reasons = impossible(Scene(run, 0), [Other(other, Scene(run, 0))])
    expected = {
        "token_choice": set(REPLACEMENTS),
        "expert_choice": set(REPLACEMENTS),
        "soft": set(REPLACEMENTS) - {"hash", "random"},
        "hash": {"uniform", "soft_identity", "hash", "random"},
    }[router]
    assert set(REPLACEMENTS) - set(reasons) == expected
    places = ("", " blocks.0", " blocks.1")
    called = {name: f"{name}=1" if name.startswith("other_seed") else name for name in expected}
    assert set(found) == {name + place for name, place in itertools.product(called.values(), places)}
    for result in found.values():
        assert 0 <= result["first_choice_agreement"] <= 1
        assert 0 < result["first_choice_agreement_chance"] <= 1
        assert result["top1"] + result["top1_lost_points"] / 100 == pytest.approx(result["top1_trained"])
        assert result["top1_trained"] == pytest.approx(run.record["metrics"]["test/top1"])
        assert all(np.isfinite(value) for value in result.values())
    assert {name: layer.router for name, layer in moe_layers(run.model).items()} == own
    assert {name: layer.router for name, layer in moe_layers(other.model).items()} == its
    if router != "hash":
        for place in (" blocks.0", " blocks.1"):
            assert found[f"drop_first{place}"]["first_choice_agreement"] == 0
            agreement = found[f"other_seed_scores_matched=1{place}"]["first_choice_agreement"]
            assert agreement >= found[f"other_seed_scores=1{place}"]["first_choice_agreement"]
    else:
        assert found["hash"]["top1_lost_points"] == 0
        assert found["hash"]["first_choice_agreement"] == 1
    description = replacement_picture(found).description
    assert "costs" in description
    assert len(list(replacement_rows(found))) == len(found)


def test_a_soft_router_is_replaced_by_the_mean_of_all_tokens(trained: Trained) -> None:
    run = trained("router=soft")
    found = results(run, "uniform")
    assert set(found) == {"uniform", "uniform blocks.0", "uniform blocks.1"}
    for result in found.values():
        assert result["top1_trained"] == pytest.approx(run.record["metrics"]["test/top1"])
        assert 0 <= result["top1"] <= 1


def test_chance_is_fitted_as_the_match_is(trained: Trained) -> None:
    run, other = trained("router=token_choice"), trained("router=token_choice", "seed=1")
    names = ("other_seed_scores", "other_seed_scores_matched")
    found = results(run, *names, others=(other,))
    plain, fitted = (found[f"{name}=1 blocks.0"]["first_choice_agreement_chance"] for name in names)
    assert fitted >= 1 / 4
    assert fitted != plain


def test_another_training_of_the_other_seed_is_measured_again(trained: Trained) -> None:
    def rests_on(other: FinishedRun) -> list[Any]:
        asked = Asked(replacements=("other_seed",), others=(other,))
        return [one.rests_on["other"] for one in routers.measurements(run, asked)]

    run, other = trained("router=token_choice"), trained("router=token_choice", "seed=1")
    later = {**other.record["provenance"], "finished": "2099-01-01T00:00:00+00:00"}
    again = replace(other, record={**other.record, "provenance": later})
    assert rests_on(other)[0]["run_id"] == other.run_id
    assert rests_on(other) == rests_on(other) != rests_on(again)


@pytest.mark.parametrize(
    "router", ["sigmoid_bias", pytest.param("sinkhorn_expert_choice", marks=pytest.mark.slow)]
)
def test_other_routers_on_other_scores(router: str, trained: Trained) -> None:
    found = results(trained(f"router={router}"), "drop_first", "frozen")
    assert found["drop_first blocks.0"]["first_choice_agreement"] < 0.05
    assert found["frozen"]["executed_flops_per_image"] > 0


@pytest.mark.parametrize(
    "words",
    [
        ("router=token_choice",),
        ("router=token_choice", "slots_per_token=2", "capacity_factor=0.7"),
        ("router=expert_choice", "slots_per_token=2", "capacity_factor=0.7"),
        ("router=token_choice", "group=4"),
    ],
)
def test_a_control_has_as_many_slots_as_the_router(words: tuple[str, ...], trained: Trained) -> None:
    scene = Scene(trained(*words), 0)
    for name in ("hash", "random"):
        with standing_in(scene, name, list(scene.layers), None) as controls:
            for layer, control in controls.items():
                tokens = torch.randn(2, 4 * scene.tokens_per_image(layer), 16)
                own, its = (router(tokens).plan for router in (scene.layers[layer].router, control))
                assert isinstance(its, SparsePlan)
                assert its.num_slots == own.num_slots


def test_in_groups_of_several_images(trained: Trained) -> None:
    found = results(trained("router=token_choice", "group=4"), "frozen", "shuffled", "drop_first")
    assert found["drop_first blocks.1"]["first_choice_agreement"] == 0


def test_a_convnext_has_layers_of_other_widths(trained: Trained) -> None:
    run = trained("router=token_choice", "model=pocket_convnext", "placement=stage", *NO_VIT)
    scene = Scene(run, 0)
    assert impossible(scene, [])["other_layer"] == "no other layer has a router of the same shape"
    found = results(run, "frozen")
    assert list(found) == ["frozen", *(f"frozen {layer}" for layer in scene.layers)]


NO_VIT = ("~model.arguments.depth", "~model.arguments.embed_dim", "~model.arguments.num_heads")


def test_scores_of_itself_change_nothing(trained: Trained) -> None:
    run, twin = trained("router=expert_choice"), trained("router=expert_choice")
    scene = Scene(run, 0)
    other = Other(twin, scene)
    for name in ("other_seed", "other_seed_matched", "other_seed_scores", "other_seed_scores_matched"):
        with standing_in(scene, name, list(scene.layers), other) as own, replaced(run.model, own):
            found = take(run, scene.order)
        np.testing.assert_allclose(found.seen.logits, scene.trained.seen.logits, atol=1e-5)


def test_the_seed_changes_the_random_router(trained: Trained) -> None:
    run = trained("router=token_choice")
    choices = []
    for seed in (0, 0, 1):
        with standing_in(Scene(run, seed), "random", ["blocks.0"], None) as controls:
            choices.append(controls["blocks.0"](torch.zeros(1, 17, 16)).plan.gates)
    assert torch.equal(choices[0], choices[1])
    assert not torch.equal(choices[0], choices[2])
    modes = [m.mode for m in routers.measurements(run, Asked(replacements=("random",), seed=3))]
    assert modes == ["random seed=3", "random blocks.0 seed=3", "random blocks.1 seed=3"]


def test_routers_come_back_after_an_error(trained: Trained) -> None:
    run = trained("router=token_choice")
    layers = moe_layers(run.model)
    own = layers["blocks.0"].router
    with pytest.raises(KeyError), replaced(run.model, {"blocks.0": layers["blocks.1"].router, "no": own}):
        pass
    with pytest.raises(RuntimeError), replaced(run.model, {"blocks.0": layers["blocks.1"].router}):
        raise RuntimeError
    assert moe_layers(run.model)["blocks.0"].router is own


@pytest.mark.parametrize(
    ("words", "name", "text"),
    [
        (["router=dense"], "hash", "--replace=hash is not for RUN: it has no MoE layer"),
        (["router=soft"], "hash", "--replace=hash is not for RUN: its slots do not hold a token each"),
        (["router=hash"], "frozen", "--replace=frozen is not for RUN: its routers have no scores"),
        (
            ["router=token_choice", "group=4"],
            "uniform",
            "--replace=uniform is not for RUN: its groups hold several images",
        ),
        (
            ["router=token_choice"],
            "other_seed",
            "--replace=other_seed is not for RUN: name a run of the same configuration and another seed too",
        ),
    ],
)
def test_refused(words: list[str], name: str, text: str, trained: Trained) -> None:
    run = trained(*words)
    with pytest.raises(ValueError, match=f"^{re.escape(text.replace('RUN', run.run_id))}"):
        list(routers.measurements(run, Asked(replacements=(name,))))


def test_a_dense_model_has_no_router(trained: Trained) -> None:
    assert results(trained("router=dense")) == {}
