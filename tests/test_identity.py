"""The identity of a run: what changes it, what does not."""

import re

import pytest
from omegaconf import DictConfig

from routerbench.compose import compose_sweep
from routerbench.identity import data_id, group_id, identity, run_id, twin_id


def composed(*words: str) -> DictConfig:
    return compose_sweep(words, None, False).configs[0]


def ids(*words: str) -> tuple[str, str]:
    settings = identity(composed(*words))
    return run_id(settings), group_id(settings)


@pytest.fixture(scope="module")
def default() -> tuple[str, str]:
    return ids()


def test_an_id_is_readable_and_a_file_name() -> None:
    run, group = ids("data=digits", "model.name=hf-hub:timm/vit", "router=soft", "seed=7")
    assert re.fullmatch(r"digits-hf_hub_timm_vit-soft-s7-[0-9a-f]{10}", run)
    assert re.fullmatch(r"digits-hf_hub_timm_vit-soft-[0-9a-f]{10}", group)


@pytest.mark.parametrize(
    "words",
    [
        ["seed=0", "epochs=5", "router=expert_choice"],
        ["capacity_factor=1"],
        ["router.noise_std=1"],
        ["placement='last_2'"],
        ["runtime.results=/elsewhere", "runtime.device=cpu", "runtime.workers=7", "runtime.threads=1"],
        ["runtime.wandb=disabled", "runtime.log_every_steps=1", "runtime.retry=all"],
        ["parallel.data=2", "parallel.expert=2"],
        ["slots_per_token=2", "router.capacity_factor=1"],
    ],
)
def test_the_same_configuration_has_the_same_id(words: list[str], default: tuple[str, str]) -> None:
    assert ids(*words) == default


def test_ids_are_those_of_the_first_records(default: tuple[str, str]) -> None:
    # Ids of before there were parts of a training set, repeats, erasing and further evaluations.
    assert default[0] == "landcover32-pocket_vit-expert_choice-s0-78d9ef0686"
    assert ids("data=folder", "augment=imagenet")[0] == "folder-pocket_vit-expert_choice-s0-09e40df025"


# Ids of before slots_per_token, of every router and of both ways to say it.
@pytest.mark.parametrize(
    ("words", "of_before"),
    [
        ("router=token_choice slots_per_token=2", "landcover32-pocket_vit-token_choice-s0-bdcfc8f87a"),
        ("router=token_choice router.top_k=2", "landcover32-pocket_vit-token_choice-s0-bdcfc8f87a"),
        ("router=expert_choice slots_per_token=2", "landcover32-pocket_vit-expert_choice-s0-95fe822bff"),
        ("router=soft capacity_factor=2", "landcover32-pocket_vit-soft-s0-40b7e05b17"),
        ("router=random group=8", "landcover32-pocket_vit-random-s0-6381f8ea3d"),
        ("router=sigmoid_bias", "landcover32-pocket_vit-sigmoid_bias-s0-f3baab4cab"),
        ("router=sparse_token_choice", "landcover32-pocket_vit-sparse_token_choice-s0-f773412986"),
        ("router=soft_identity", "landcover32-pocket_vit-soft_identity-s0-ce8e9c8f3d"),
        ("router=uniform", "landcover32-pocket_vit-uniform-s0-bcf74af39c"),
        (
            "+recipe=vmoe_s32_imagenet1k router=token_choice router.top_k=2 group=8",
            "folder-vit_s32-token_choice-s0-6ff9932693",
        ),
    ],
)
def test_ids_are_those_of_before_slots_per_token(words: str, of_before: str) -> None:
    assert ids(*words.split())[0] == of_before


@pytest.mark.parametrize(
    "word",
    [
        "router=token_choice",
        "router.noise_std=0.5",
        "model=pocket_convnext",
        "model.drop_path_rate=0.1",
        "+model.arguments.depth=2",
        "placement=last_half",
        "placement=[3,5]",
        "num_experts=4",
        "capacity_factor=2",
        "group=8",
        "data=digits",
        "data.image_size=64",
        "augment=none",
        "augment.num_repeats=2",
        "augment.random_erasing=0.1",
        "data.train_split=train[:90%]",
        "data.minival_split=train[90%:]",
        "+eval=imagenet_v2",
        "epochs=6",
        "batch_size=32",
        "optim.lr=0.5",
        "precision=bf16",
        "eval_every=2",
        "expert_init=independent",
        "expert_mlp_ratio=2",
        "expert_dropout=0.1",
        "extra_skip=true",
        "model.weights=a.pth",
        "optim.expert_weight_decay=0.1",
        "loss.label_smoothing=0.1",
        "loss.name=sigmoid",
        "mix.mixup_alpha=0.2",
        "ema.decay=0.99",
        "optim.layer_decay=0.75",
        "+optim.arguments.eps=1e-6",
    ],
)
def test_what_can_change_a_number_changes_both_ids(word: str, default: tuple[str, str]) -> None:
    run, group = ids(word)
    assert run != default[0]
    assert group != default[1]


def test_the_seed_changes_the_id_of_the_run_but_not_of_the_group(default: tuple[str, str]) -> None:
    run, group = ids("seed=1")
    assert run != default[0]
    assert group == default[1]


def test_a_dense_run_is_one_run_whatever_the_moe_settings() -> None:
    dense = [
        ids("router=dense"),
        ids("router=dense", "num_experts=4", "capacity_factor=2", "group=8", "placement=every_2"),
        ids("placement=none"),
        ids("placement=[]"),
        ids("placement=none", "router=soft", "num_experts=2"),
        ids("router=dense", "expert_init=independent", "expert_mlp_ratio=2", "expert_dropout=0.1"),
        ids("router=dense", "extra_skip=true", "optim.expert_weight_decay=0.1"),
        ids("router=dense", "expert_init=null", "extra_skip=null"),
    ]
    dense.append(ids("router=dense", "slots_per_token=2"))
    dense.append(ids("placement=none", "slots_per_token=null", "capacity_factor=null"))
    assert len(set(dense)) == 1
    settings = identity(composed("placement=none", "router=soft"))
    of_experts = ("num_experts", "expert_init", "expert_mlp_ratio", "expert_dropout")
    absent = dict.fromkeys((*of_experts, "capacity_factor", "group", "extra_skip"))
    assert settings["optim"]["expert_weight_decay"] is None
    assert {name: settings[name] for name in ("router", "placement", *absent)} == {
        "router": {"name": "dense"},
        "placement": "none",
        **absent,
    }


def test_the_identity_is_resolved_and_without_what_only_fetches_or_runs() -> None:
    settings = identity(composed("data=cifar10", "data.path=/d", "data.download=true", "capacity_factor=2"))
    assert settings["router"]["capacity_factor"] == 2.0
    assert settings["data"]["source"] == {"_target_": "routerbench.data.sources.cifar10", "path": "/d"}
    assert "download" not in settings["data"]
    assert "runtime" not in settings


def test_runs_on_the_same_batches_share_their_data() -> None:
    def data(*words: str) -> str:
        return data_id(identity(composed(*words)))

    assert data("router=soft", "seed=3", "epochs=1") == data()
    assert len({data(), data("batch_size=32"), data("augment=none"), data("data=digits")}) == 4


def test_the_twin_of_a_run_is_dense_and_of_the_same_backbone_data_and_training() -> None:
    def twin(*words: str) -> str:
        return twin_id(identity(composed(*words)))

    moe = twin("router=soft", "seed=3", "num_experts=4", "capacity_factor=2", "placement=every_2")
    assert moe == twin("router=dense")
    assert len({moe, twin("model=pocket_convnext"), twin("data=digits"), twin("optim.lr=0.5")}) == 4
