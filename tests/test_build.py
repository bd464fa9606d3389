"""From names to objects: what is given arrives, and what makes no sense is refused in one line."""

import re
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import routerbench as rb
from routerbench.build import build_backbone, build_router, configured_router, sparsify
from routerbench.config import conf_dir
from routerbench.moe.sparse import SparseRouter
from routerbench.routers.soft import Soft
from routerbench.routers.token_choice import TokenChoice

ROUTERS = ", ".join(
    sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml") if path.stem != "dense")
)
SPARSE_SETTINGS = (
    "scorer, projection_width, temperature, noise_std, normalize_combine, importance_weight, load_weight, "
    "gshard_weight, z_weight, capacity_factor, capacity, capacity_rounding, capacity_multiple_of, "
    "capacity_factor_eval"
)


def test_defaults_are_those_of_the_yaml() -> None:
    router = cast("TokenChoice", build_router("token_choice", width=8, num_experts=4))
    yaml = OmegaConf.load(conf_dir() / "router" / "token_choice.yaml")
    train = OmegaConf.load(conf_dir() / "train.yaml")
    assert type(router) is TokenChoice
    assert router.top_k == train.slots_per_token
    assert router.batch_priority is yaml.batch_priority
    assert router.scorer.noise_std == yaml.noise_std / 4
    assert router.loss_weights.importance == yaml.importance_weight
    assert router.loss_weights.load == yaml.load_weight
    assert router.capacity.factor == train.capacity_factor
    assert router.capacity.fixed is None
    assert router.scorer.weight.shape == (4, 8)


def test_settings_arrive() -> None:
    router = cast(
        "TokenChoice",
        build_router(
            "token_choice",
            width=8,
            num_experts=4,
            top_k=2,
            batch_priority=True,
            noise_std=0.5,
            capacity_factor=1.25,
            capacity=3,
            capacity_rounding="round",
            capacity_multiple_of=2,
            importance_weight=0.1,
            load_weight=0.2,
            gshard_weight=0.3,
            z_weight=0.4,
        ),
    )
    assert (router.top_k, router.batch_priority, router.scorer.noise_std) == (2, True, 0.125)
    capacity, weights = router.capacity, router.loss_weights
    assert (capacity.factor, capacity.fixed, capacity.rounding, capacity.multiple_of) == (1.25, 3, "round", 2)
    assert (weights.importance, weights.load, weights.gshard, weights.z) == (0.1, 0.2, 0.3, 0.4)


def test_public_names_are_the_same_objects() -> None:
    assert rb.build_router is build_router
    assert rb.sparsify is sparsify
    assert "build_router" in dir(rb)
    with pytest.raises(AttributeError, match=r"^module 'routerbench' has no attribute 'Trainer'$"):
        rb.Trainer  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


MY_ROUTER = {
    "name": "mine",
    "_target_": "routerbench.routers.soft.Soft",
    "slots_per_expert": 2,
    "noise_std": 0.0,
    "capacity_factor": 1.0,
    "capacity_rounding": "ceil",
    "capacity_multiple_of": 1,
}


def test_a_composed_group_gives_its_router() -> None:
    router = configured_router(OmegaConf.create(MY_ROUTER), width=8, num_experts=4)
    assert isinstance(router, Soft)
    assert router.phi.shape == (8, 4, 2)


def test_a_composed_group_with_a_setting_that_its_router_does_not_take() -> None:
    message = r"^router=mine with \{.*'phi': 3\} cannot be built: .*unexpected keyword argument 'phi'$"
    with pytest.raises(ValueError, match=message):
        configured_router(OmegaConf.create({**MY_ROUTER, "phi": 3}), width=8, num_experts=4)


def test_a_target_that_is_no_router() -> None:
    config = OmegaConf.create({"name": "mine", "_target_": "torch.nn.Linear"})
    with pytest.raises(ValueError, match=r"^router\._target_=torch\.nn\.Linear is not a Router$"):
        configured_router(config, width=8, num_experts=4)


@pytest.mark.parametrize(
    ("router", "settings", "message"),
    [
        ("topk", {}, f"router=topk is not one of: {ROUTERS}"),
        ("dense", {}, f"router=dense is not one of: {ROUTERS}"),
        (
            "tokenchoice",
            {},
            f"router=tokenchoice is not one of: {ROUTERS} (did you mean token_choice?)",
        ),
        (
            "expert_choice",
            {"capacity_facto": 2.0},
            f"capacity_facto=2.0 is not a setting of router=expert_choice, which has: {SPARSE_SETTINGS} "
            "(did you mean capacity_factor?)",
        ),
        (
            "expert_choice",
            {"top_k": 2},
            f"top_k=2 is not a setting of router=expert_choice, which has: {SPARSE_SETTINGS}",
        ),
        (
            "soft",
            {"_target_": "x"},
            "_target_=x is not a setting of router=soft, which has: slots_per_expert, noise_std, "
            "capacity_factor, capacity_rounding, capacity_multiple_of",
        ),
        ("token_choice", {"top_k": 5}, "top_k=5 is more than num_experts=4: give at most that"),
        ("token_choice", {"top_k": 0}, "top_k=0 must be a whole number of at least 1"),
        ("token_choice", {"noise_std": -1.0}, "noise_std=-1.0 must be a number of at least 0"),
        (
            "token_choice",
            {"importance_weight": -1.0},
            "importance_weight=-1.0 must be a number of at least 0",
        ),
        ("token_choice", {"capacity_factor": 0.0}, "capacity_factor=0.0 must be a number above 0"),
        ("token_choice", {"capacity": 0}, "capacity=0 must be a whole number of at least 1"),
        (
            "expert_choice",
            {"capacity_rounding": "floor"},
            "capacity_rounding=floor is not one of: ceil, round",
        ),
        ("sinkhorn_token_choice", {"top_k": 9}, "top_k=9 is more than num_experts=4: give at most that"),
        (
            "sinkhorn_token_choice",
            {"num_iterations": 0},
            "num_iterations=0 must be a whole number of at least 1",
        ),
        ("sinkhorn_expert_choice", {"regularisation": 0.0}, "regularisation=0.0 must be a number above 0"),
        ("sparse_expert_choice", {"learning_rate": -0.1}, "learning_rate=-0.1 must be a number above 0"),
        (
            "sparse_expert_choice",
            {"num_iterations": True},
            "num_iterations=True must be a whole number of at least 1",
        ),
        ("soft", {"slots_per_expert": 0}, "slots_per_expert=0 must be a whole number of at least 1"),
        ("soft", {"capacity_factor": -1.0}, "capacity_factor=-1.0 must be a number above 0"),
        ("hash", {"top_k": 5}, "top_k=5 is more than num_experts=4: give at most that"),
        ("random", {"capacity": -3}, "capacity=-3 must be a whole number of at least 1"),
    ],
)
def test_routers_that_make_no_sense(router: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_router(router, width=8, num_experts=4, **settings)


@pytest.mark.parametrize("router", ROUTERS.split(", "))
def test_a_router_needs_an_expert(router: str) -> None:
    with pytest.raises(ValueError, match=r"^num_experts=0 must be a whole number of at least 1$"):
        build_router(router, width=8, num_experts=0)


@pytest.mark.parametrize(
    ("router", "arguments", "message"),
    [
        (
            "token_choise",
            {},
            f"router=token_choise is not one of: {ROUTERS} (did you mean token_choice?)",
        ),
        ("token_choice", {"top_k": 5}, "top_k=5 is more than num_experts=4: give at most that"),
        (
            "token_choice",
            {"topk": 2},
            "topk=2 is not a setting of router=token_choice, which has: top_k, top_k_eval, "
            f"batch_priority, {SPARSE_SETTINGS}, dropless (did you mean top_k?)",
        ),
        ("token_choice", {"group": 0}, "group=0 is neither image nor a number of images"),
        ("soft", {"group": 2}, "group=2 would mix images: Soft routes each alone, group=image"),
        (
            "soft",
            {"placement": "last_3"},
            "placement=last_3 is not one of: last_2, every_2, last_half, stage, none (did you mean last_2?)",
        ),
        (
            "soft",
            {"placement": "stage"},
            "placement=stage needs a model in stages, such as a ConvNeXt: this one has none",
        ),
        ("soft", {"placement": [6]}, "placement=[6] names block 6: the blocks are 0 to 5"),
        ("soft", {"num_experts": 0}, "num_experts=0 must be a whole number of at least 1"),
    ],
)
def test_surgery_that_makes_no_sense_leaves_the_model_as_it_was(
    router: str, arguments: dict[str, Any], message: str
) -> None:
    backbone = build_backbone("pocket_vit", num_classes=10, image_size=32)
    modules = dict(backbone.named_modules())
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sparsify(backbone, router, **{"num_experts": 4, "placement": "last_2", **arguments})
    assert dict(backbone.named_modules()) == modules


def test_a_model_that_was_made_sparse_has_all_its_parameters() -> None:
    model = sparsify(build_backbone("pocket_vit", 10, 32), "soft", num_experts=4, placement=[1])
    # 16 patches and a class token over 4 experts are 5 slots of each.
    assert model.state_dict()["blocks.1.mlp.router.phi"].shape == (64, 4, 5)


def test_a_model_without_mlp_cannot_be_made_sparse() -> None:
    message = "the model has no block with an MLP to replace: take a ViT, a ConvNeXt, a Swin ..."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sparsify(nn.Sequential(nn.Linear(2, 2)), "soft", 4, "last_2")


def test_settings_reach_the_routers_of_every_block() -> None:
    backbone = build_backbone("pocket_convnext", num_classes=10, image_size=32)
    sparsify(backbone, "expert_choice", 4, "stage", capacity_factor=2.0, noise_std=0.0)
    layers = rb.moe_layers(backbone)
    assert list(layers) == [
        "stages.0.blocks.0",
        "stages.1.blocks.0",
        "stages.2.blocks.2",
        "stages.3.blocks.0",
    ]
    for layer, width in zip(layers.values(), (32, 64, 96, 128), strict=True):
        router = cast("SparseRouter", layer.router)
        assert router.capacity.factor == 2.0
        assert router.scorer.weight.shape == (4, width)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("pocket_vitt", {}, "model.name=pocket_vitt is not a timm model (did you mean pocket_vit?)"),
        ("", {}, "model.name= is not a timm model"),
    ],
)
def test_backbones_that_timm_does_not_have(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_backbone(name, num_classes=10, image_size=32, **arguments)


def test_backbones_that_cannot_be_built() -> None:
    message = r"^model\.name=pocket_vit with \{'img_size': 32, 'depht': 4\} cannot be built: .*depht.*$"
    with pytest.raises(ValueError, match=message):
        build_backbone("pocket_vit", num_classes=10, image_size=32, depht=4)


@pytest.mark.parametrize(
    ("name", "image_size", "arguments"),
    [
        ("vit_tiny_patch16_224", 64, {}),  # has positions for a size
        ("vit_tiny_patch16_224", 64, {"img_size": 64, "drop_path_rate": 0.1}),
        ("convnext_atto", 64, {}),  # takes any
        ("resnet18", 64, {}),
    ],
)
def test_backbones_of_timm_take_the_size_of_the_images(
    name: str, image_size: int, arguments: dict[str, Any]
) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, num_classes=7, image_size=image_size, **arguments)
        assert backbone(torch.empty(2, 3, image_size, image_size)).shape == (2, 7)
