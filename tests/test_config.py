"""What is refused before anything is built."""

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from routerbench.compose import compose_sweep
from routerbench.config import CHOICES, check, conf_dir, is_dense


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def composed(*words: str) -> DictConfig:
    return compose_sweep(words, None, False).configs[0]


def test_dense_is_told_by_router_or_placement() -> None:
    assert is_dense(composed("router=dense"))
    assert is_dense(composed("placement=none"))
    assert not is_dense(composed())


def test_the_configuration_is_found_in_the_checkout() -> None:
    assert conf_dir() == Path(__file__).parents[1] / "conf"


COUNT = "must be a whole number of at least 1"
NOT_NEGATIVE = "must be a number of at least 0"
COLOURS = "must be three numbers, for red, green and blue"
MULTIPLE = "does not tile the batch: batch_size=64 is no multiple of it"
NO_PLACE = "is neither a name nor a list of blocks"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["precision=fp8"], "precision=fp8 is not one of: fp32, bf16, fp16"),
        (["precision=f16"], "precision=f16 is not one of: fp32, bf16, fp16 (did you mean fp16?)"),
        (
            ["runtime.wandb=of"],
            "runtime.wandb=of is not one of: offline, online, disabled",
        ),
        (["epochs=0"], f"epochs=0 {COUNT}"),
        (["batch_size=-4"], f"batch_size=-4 {COUNT}"),
        (["eval_every=0"], f"eval_every=0 {COUNT}"),
        (["data.image_size=0"], f"data.image_size=0 {COUNT}"),
        (["data.image_size=abc"], f"data.image_size=abc {COUNT}"),
        (["runtime.log_every_steps=0"], f"runtime.log_every_steps=0 {COUNT}"),
        (["runtime.threads=0"], f"runtime.threads=0 {COUNT}"),
        (["num_experts=0"], f"num_experts=0 {COUNT}"),
        (["num_experts=null"], f"num_experts=None {COUNT}"),
        (["capacity_factor=0"], "capacity_factor=0.0 must be a number above 0"),
        (["capacity_factor=-1"], "capacity_factor=-1.0 must be a number above 0"),
        (["capacity_factor=nan"], "capacity_factor=nan must be a number above 0"),
        (["optim.lr=0"], "optim.lr=0.0 must be a number above 0"),
        (["optim.clip_grad=0"], "optim.clip_grad=0.0 must be a number above 0"),
        (["seed=-1"], f"seed=-1 {NOT_NEGATIVE}"),
        (["seed=2147483648"], "seed=2147483648 is more than 2147483647: give at most that"),
        (["optim.weight_decay=-1"], f"optim.weight_decay=-1.0 {NOT_NEGATIVE}"),
        (["optim.warmup_epochs=-1"], f"optim.warmup_epochs=-1 {NOT_NEGATIVE}"),
        (["optim.warmup_lr=-1"], f"optim.warmup_lr=-1.0 {NOT_NEGATIVE}"),
        (["optim.min_lr=-1"], f"optim.min_lr=-1.0 {NOT_NEGATIVE}"),
        (["runtime.workers=-1"], f"runtime.workers=-1 {NOT_NEGATIVE}"),
        (["model.drop_path_rate=-1"], f"model.drop_path_rate=-1.0 {NOT_NEGATIVE}"),
        (["model.drop_path_rate=1"], "model.drop_path_rate=1.0 must be a number below 1"),
        (
            ["optim.warmup_epochs=3", "epochs=2"],
            "optim.warmup_epochs=3 is more than epochs=2: give at most that",
        ),
        (["group=7"], f"group=7 {MULTIPLE}"),
        (["group=128"], f"group=128 {MULTIPLE}"),
        (["placement=null"], f"placement=None {NO_PLACE}"),
        (["placement=3"], f"placement=3 {NO_PLACE}"),
        (["data.path=/tmp"], "data.path=/tmp means nothing to data=landcover32: leave it out"),
        (["optim.expert_weight_decay=-1"], f"optim.expert_weight_decay=-1.0 {NOT_NEGATIVE}"),
        (["extra_skip=null"], "extra_skip=None must be true or false"),
        (
            ["expert_init=upcycle"],
            "expert_init=upcycle has no dense weights to start from: give model.weights, or "
            "expert_init=shared or independent",
        ),
        (
            ["model.weights=a.pth"],
            "expert_init=shared with model.weights=a.pth would be upcycling: say expert_init=upcycle, or "
            "independent; null takes the experts of an MoE run",
        ),
        (["mix.mixup_alpha=-1"], f"mix.mixup_alpha=-1.0 {NOT_NEGATIVE}"),
        (["mix.probability=1.5"], "mix.probability=1.5 must be a number from 0 to 1"),
        (["mix.off_epoch=-1"], f"mix.off_epoch=-1 {NOT_NEGATIVE}"),
        (
            ["mix.cutmix_alpha=1", "batch_size=12", "optim.accumulation_steps=4"],
            "batch_size=12 / optim.accumulation_steps=4 is odd, and mix takes two images at a time: give an "
            "even number",
        ),
        (["ema.decay=1"], "ema.decay=1.0 must be a number below 1"),
        (["ema.decay=-0.5"], f"ema.decay=-0.5 {NOT_NEGATIVE}"),
        (["optim.layer_decay=0"], "optim.layer_decay=0.0 must be above 0 and at most 1"),
        (["optim.layer_decay=2"], "optim.layer_decay=2.0 must be above 0 and at most 1"),
        (["data.mean=abc"], f"data.mean=abc {COLOURS}"),
        (["data.std=[1]"], f"data.std=[1] {COLOURS}"),
        (["data.std=[1,1,a]"], "data.std=a must be a number above 0"),
        (["data.std=[1,1,0]"], "data.std=0 must be a number above 0"),
        (["parallel.data=0"], f"parallel.data=0 {COUNT}"),
        (
            ["runtime.retry=true"],
            "runtime.retry=True is not one of: failed, diverged, oom, all",
        ),
        (["runtime.retry=done"], "runtime.retry=done is not one of: failed, diverged, oom, all"),
        (["runtime.timeout_seconds=0"], "runtime.timeout_seconds=0.0 must be a number above 0"),
        (
            ["parallel.data=3"],
            "batch_size=64 cannot be shared out to 3 processes in optim.accumulation_steps=1 parts: give a "
            "multiple of all of them",
        ),
        (
            ["parallel.data=2", "parallel.expert=2", "optim.accumulation_steps=2", "group=32"],
            "batch_size=64 cannot be shared out to 4 processes in optim.accumulation_steps=2 parts of "
            "group=32: give a multiple of all of them",
        ),
        (
            ["parallel.shard=2", "parallel.expert=2"],
            "parallel.shard=2 with parallel.expert=2 is not supported: give one of them, with parallel.data",
        ),
        (
            ["parallel.shard=2", "precision=fp16"],
            "precision=fp16 is not supported where ranks hold different parameters, for each would scale its "
            "loss alone: take bf16, or parallel.data alone",
        ),
        (
            ["parallel.data=2", "runtime.retry_oom=true"],
            "runtime.retry_oom=true is for one process: what one of many lacks the others may not",
        ),
        (
            ["parallel.data=64", "mix.mixup_alpha=0.8"],
            "batch_size=64 cannot be shared out to 64 processes in optim.accumulation_steps=1 parts of pairs "
            "to be mixed: give a multiple of all of them",
        ),
        (
            ["parallel.data=2", "runtime.compile=true"],
            "runtime.compile=true is for one process: on many ranks its kernels draw other random numbers",
        ),
        (
            ["parallel.shard=2", "runtime.channels_last=true"],
            "runtime.channels_last=true cannot be cut into parallel.shard=2: give false, or parallel.data",
        ),
        (
            ["parallel.expert=2", "router=dense"],
            "parallel.expert=2 means nothing to a run without experts: take parallel.data",
        ),
        (
            ["parallel.expert=4", "num_experts=6"],
            "parallel.expert=4 does not divide num_experts=6: give a divisor",
        ),
        (
            ["parallel.expert=2", "runtime.backend=loop"],
            "runtime.backend=loop cannot send tokens to the experts of other processes: take auto or bmm "
            "with parallel.expert=2",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused(words: list[str], text: str) -> None:
    config = composed(*words)
    with pytest.raises(ValueError, match=exactly(text)):
        check(config)


@pytest.mark.parametrize(
    "words",
    [
        ["optim.clip_grad=null", "runtime.threads=2", "optim.warmup_epochs=0", "optim.weight_decay=0"],
        ["group=8"],
        ["mix.mixup_alpha=0.2", "optim.accumulation_steps=32", "ema.decay=0.999"],
        ["group=64", "optim.warmup_epochs=5"],
        ["router=dense", "group=7"],
        ["data=folder", "data.path=/d"],
        ["placement=[3,5]"],
        ["router=dense", "expert_init=upcycle"],
        ["router=dense", "model.weights=pretrained"],
        ["expert_init=upcycle", "model.weights=pretrained", "optim.expert_weight_decay=0"],
        ["expert_init=independent", "model.weights=a.pth"],
    ],
)
def test_settings_in_range_pass(words: list[Any]) -> None:
    check(composed(*words))


@pytest.mark.parametrize(
    ("words", "num_processes", "text"),
    [
        (
            ["parallel.expert=2"],
            1,
            "parallel.data=1 parallel.shard=1 parallel.expert=2 needs WORLD_SIZE=2, which is 1: start "
            "torchrun --nproc-per-node 2 -m routerbench train ..., or give another layout",
        ),
        (
            [],
            4,
            "parallel.data=1 parallel.shard=1 parallel.expert=1 needs WORLD_SIZE=1, which is 4: start "
            "torchrun --nproc-per-node 1 -m routerbench train ..., or give another layout",
        ),
        (
            ["parallel.data=2", "runtime.device=cuda:1"],
            2,
            "runtime.device=cuda:1 is one device for 2 processes: take cuda, by which each has its own",
        ),
    ],
)
def test_another_number_of_processes_is_refused(words: list[str], num_processes: int, text: str) -> None:
    with pytest.raises(ValueError, match=exactly(text)):
        check(composed(*words), num_processes)
    check(composed("parallel.data=4"), 4)


def test_the_names_that_are_checked_without_torch_are_those_that_there_are() -> None:
    from routerbench.device import PRECISIONS
    from routerbench.moe.backends import BACKENDS
    from routerbench.weights import RESIZE

    assert CHOICES["precision"] == tuple(PRECISIONS)
    assert CHOICES["model.resize"] == tuple(RESIZE)
    assert CHOICES["runtime.backend"] == ("auto", *BACKENDS)
