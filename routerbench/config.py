"""What a configuration means, and what is refused before anything is built."""

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from routerbench.checks import check_count, check_flag, check_not_negative, check_one_of, check_positive

PLACEMENTS = ("last_2", "every_2", "last_half", "stage", "none")
EXPERT_INITS = ("shared", "independent", "upcycle")
LOSSES = ("softmax", "sigmoid", "sigmoid_mean")
CHOICES = {
    "precision": ("fp32", "bf16", "fp16"),
    "model.resize": ("bicubic", "zoom"),
    "runtime.backend": ("auto", "bmm", "loop", "grouped", "one_hot"),
    "runtime.wandb": ("offline", "online", "disabled"),
}
MAX_SEED = 2**31 - 1  # numpy takes 32 bits, and an offset is added
NOT_NEGATIVE = (
    "seed",
    "model.drop_path_rate",
    "optim.weight_decay",
    "optim.warmup_lr",
    "optim.min_lr",
    "mix.mixup_alpha",
    "mix.cutmix_alpha",
    "mix.probability",
    "mix.switch_probability",
    "runtime.decoded_cache_gib",
)
NOT_NEGATIVE_OR_NULL = (
    "optim.expert_weight_decay",
    "optim.head_weight_decay",
    "ema.decay",
    "mix.off_epoch",
    "optim.warmup_epochs",
    "optim.warmup_steps",
)


def conf_dir() -> Path:
    """The folder of the configuration files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if (installed / "train.yaml").exists() else package.parent / "conf"


def is_dense(config: DictConfig) -> bool:
    """Whether the run is the twin without MoE."""
    return config.router.name == "dense" or config.placement == "none" or config.placement == []


def check(config: DictConfig, num_processes: int | None = None) -> None:
    """Refuse settings that are out of range or do not fit each other; raises ValueError.

    With a number of processes also a layout that is for another.
    """
    for key, names in CHOICES.items():
        check_one_of(key, OmegaConf.select(config, key), names)
    if config.runtime.retry is not None:
        check_one_of("runtime.retry", config.runtime.retry, ("failed", "diverged", "oom", "all"))
    _check_ranges(config)
    if config.router.name == "dense" and "_target_" in config.router:
        raise ValueError("router.name=dense is not what this router is: say router=dense")
    if not isinstance(config.placement, str | ListConfig):
        raise ValueError(f"placement={config.placement} is neither a name nor a list of blocks")
    if isinstance(config.placement, str):  # of a dense run too, which does not look at it
        check_one_of("placement", config.placement, PLACEMENTS)
    if config.expert_init is not None or not is_dense(config):  # a dense run may say null
        check_experts(expert_init_of(config), config.expert_mlp_ratio, config.expert_dropout)
    check_loss(config.loss.name, config.loss.label_smoothing, config.loss.target_threshold)
    _check_weights(config)
    if not config.runtime.results:  # the folder in which the command happens to run
        raise ValueError("runtime.results= is empty: give a folder, such as results")
    if config.data.path is not None and "path" not in config.data.source:
        raise ValueError(
            f"data.path={config.data.path} means nothing to data={config.data.name}: leave it out"
        )
    _check_parts(config)
    _check_parallel(config)
    if num_processes is not None:
        _check_processes(config, num_processes)
    if not is_dense(config):
        _check_slots(config)
        check_flag("extra_skip", config.extra_skip)
        _check_start(config.expert_init, config.model.weights)
    if (config.optim.warmup_epochs or 0) > config.epochs:
        raise ValueError(
            f"optim.warmup_epochs={config.optim.warmup_epochs} is more than epochs={config.epochs}: "
            "give at most that"
        )


def check_experts(init: object, mlp_ratio: float | None, dropout: float | None) -> None:
    """Raise ValueError for a setting of the experts that is out of range, whatever the MLP is."""
    check_one_of("expert_init", init, EXPERT_INITS)
    if mlp_ratio is not None:
        check_positive("expert_mlp_ratio", mlp_ratio)
    if dropout is not None:
        check_not_negative("expert_dropout", dropout)
        if dropout >= 1:
            raise ValueError(f"expert_dropout={dropout} must be a number below 1")


def check_loss(name: str, label_smoothing: float, target_threshold: float | None) -> None:
    """Raise ValueError for a loss of the task that is unknown or impossible."""
    check_one_of("loss.name", name, LOSSES)
    check_not_negative("loss.label_smoothing", label_smoothing)
    if label_smoothing >= 1:
        raise ValueError(f"loss.label_smoothing={label_smoothing} must be a number below 1")
    if target_threshold is None:
        return
    check_not_negative("loss.target_threshold", target_threshold)
    if name == "softmax" or label_smoothing:
        raise ValueError(
            f"loss.target_threshold={target_threshold} goes with neither loss.name=softmax nor label "
            f"smoothing: say null, or change loss.name={name} and loss.label_smoothing={label_smoothing}"
        )


def expert_init_of(config: DictConfig) -> Any:
    """How experts start, which is no matter where those of an MoE run are to take their place."""
    taken = config.expert_init is None and config.model.weights is not None
    return "shared" if taken else config.expert_init


def can_part(config: DictConfig, num_parts: int) -> bool:
    """Whether a batch has so many equal parts, of whole routing groups and of pairs to be mixed."""
    group = config.group if isinstance(config.group, int) and not is_dense(config) else 1
    return config.batch_size % (num_parts * math.lcm(group, 2 if mixes(config) else 1)) == 0


def mixes(config: DictConfig) -> bool:
    """Whether the images of a batch are mixed."""
    return bool(config.mix.mixup_alpha or config.mix.cutmix_alpha)


def _check_weights(config: DictConfig) -> None:
    if config.model.new_head and config.model.weights is None:
        raise ValueError(
            "model.new_head=true means nothing without model.weights, for every head is new then"
        )
    if config.model.resize != "bicubic" and config.model.weights == "pretrained":
        raise ValueError(
            f"model.resize={config.model.resize} is not for model.weights=pretrained, which timm resizes: "
            "take bicubic"
        )


def _check_parts(config: DictConfig) -> None:
    group, batch_size = config.group, config.batch_size
    parts = config.optim.accumulation_steps
    if batch_size % parts:
        raise ValueError(
            f"optim.accumulation_steps={parts} does not divide the batch: batch_size={batch_size} "
            "is no multiple of it"
        )
    if mixes(config) and batch_size // parts % 2:
        raise ValueError(
            f"batch_size={batch_size} / optim.accumulation_steps={parts} is odd, and mix takes two images "
            "at a time: give an even number"
        )
    if isinstance(group, int) and group > 0 and not can_part(config, parts):
        of_part = f" / optim.accumulation_steps={parts}" if parts > 1 else ""
        raise ValueError(
            f"group={group} does not tile the batch: batch_size={batch_size}{of_part} is no multiple of it"
        )


def _check_parallel(config: DictConfig) -> None:
    """Refuse a layout that this configuration cannot have, whatever the number of processes is."""
    sizes = config.parallel
    for axis in sizes:
        check_count(f"parallel.{axis}", sizes[axis])
    check_positive("runtime.timeout_seconds", config.runtime.timeout_seconds)
    processes, parts = sizes.data * sizes.shard * sizes.expert, config.optim.accumulation_steps
    if processes == 1:
        return
    if not can_part(config, parts * processes):
        of_group = f" of group={config.group}" if isinstance(config.group, int) else ""
        of_group += " of pairs to be mixed" if mixes(config) else ""
        raise ValueError(
            f"batch_size={config.batch_size} cannot be shared out to {processes} processes in "
            f"optim.accumulation_steps={parts} parts{of_group}: give a multiple of all of them"
        )
    if sizes.shard > 1 and sizes.expert > 1:
        raise ValueError(
            f"parallel.shard={sizes.shard} with parallel.expert={sizes.expert} is not supported: give one of "
            "them, with parallel.data"
        )
    if config.precision == "fp16" and sizes.shard * sizes.expert > 1:
        raise ValueError(
            "precision=fp16 is not supported where ranks hold different parameters, for each would scale its "
            "loss alone: take bf16, or parallel.data alone"
        )
    if config.runtime.retry_oom:
        raise ValueError(
            "runtime.retry_oom=true is for one process: what one of many lacks the others may not"
        )
    if config.runtime.compile:
        raise ValueError(
            "runtime.compile=true is for one process: on many ranks its kernels draw other random numbers"
        )
    if config.runtime.channels_last and sizes.shard > 1:
        raise ValueError(
            f"runtime.channels_last=true cannot be cut into parallel.shard={sizes.shard}: give false, or "
            "parallel.data"
        )
    if sizes.expert > 1:
        _check_expert_parallel(config)


def _check_processes(config: DictConfig, num_processes: int) -> None:
    sizes = config.parallel
    needed = sizes.data * sizes.shard * sizes.expert
    if needed != num_processes:
        layout = " ".join(f"parallel.{axis}={sizes[axis]}" for axis in sizes)
        raise ValueError(
            f"{layout} needs WORLD_SIZE={needed}, which is {num_processes}: start torchrun --nproc-per-node "
            f"{needed} -m routerbench train ..., or give another layout"
        )
    if num_processes > 1 and config.runtime.device.startswith("cuda:"):
        raise ValueError(
            f"runtime.device={config.runtime.device} is one device for {num_processes} processes: take cuda, "
            "by which each has its own"
        )


def _check_expert_parallel(config: DictConfig) -> None:
    expert = config.parallel.expert
    if is_dense(config):
        raise ValueError(
            f"parallel.expert={expert} means nothing to a run without experts: take parallel.data"
        )
    if config.num_experts % expert:
        raise ValueError(
            f"parallel.expert={expert} does not divide num_experts={config.num_experts}: give a divisor"
        )
    if config.runtime.backend not in ("auto", "bmm"):
        raise ValueError(
            f"runtime.backend={config.runtime.backend} cannot send tokens to the experts of other processes: "
            f"take auto or bmm with parallel.expert={expert}"
        )


def _check_slots(config: DictConfig) -> None:
    check_positive("slots_per_token", config.slots_per_token)
    top_k, most = config.router.get("top_k"), config.num_experts
    if top_k == config.slots_per_token and not (isinstance(top_k, int) and top_k <= most):
        raise ValueError(
            f"slots_per_token={top_k} is the top_k of router={config.router.name}: give a whole number up to "
            f"num_experts={most}, or a router that does not choose by token"
        )


def _check_start(expert_init: str | None, weights: str | None) -> None:
    if expert_init == "upcycle" and weights is None:
        raise ValueError(
            "expert_init=upcycle has no dense weights to start from: give model.weights, or "
            "expert_init=shared or independent"
        )
    if expert_init == "shared" and weights is not None:
        raise ValueError(
            f"expert_init=shared with model.weights={weights} would be upcycling: say expert_init=upcycle, "
            "or independent; null takes the experts of an MoE run"
        )


def _check_ranges(config: DictConfig) -> None:
    """Refuse a number that is out of range, whatever the other settings are."""
    for key in (
        "epochs",
        "batch_size",
        "eval_every",
        "data.image_size",
        "optim.accumulation_steps",
        "runtime.log_every_steps",
        "runtime.keep_checkpoints",
    ):
        check_count(key, OmegaConf.select(config, key))
    for key in NOT_NEGATIVE:
        check_not_negative(key, OmegaConf.select(config, key))
    check_positive("optim.lr", config.optim.lr)
    if config.seed > MAX_SEED:
        raise ValueError(f"seed={config.seed} is more than {MAX_SEED}: give at most that")
    for key in ("mix.probability", "mix.switch_probability"):
        if OmegaConf.select(config, key) > 1:
            raise ValueError(f"{key}={OmegaConf.select(config, key)} must be a number from 0 to 1")
    if config.ema.decay is not None and config.ema.decay >= 1:
        raise ValueError(f"ema.decay={config.ema.decay} must be a number below 1")
    if config.optim.layer_decay is not None and not 0 < config.optim.layer_decay <= 1:
        raise ValueError(f"optim.layer_decay={config.optim.layer_decay} must be above 0 and at most 1")
    if config.model.drop_path_rate >= 1:
        raise ValueError(f"model.drop_path_rate={config.model.drop_path_rate} must be a number below 1")
    for key in NOT_NEGATIVE_OR_NULL:
        if OmegaConf.select(config, key) is not None:
            check_not_negative(key, OmegaConf.select(config, key))
    if config.optim.clip_grad is not None:
        check_positive("optim.clip_grad", config.optim.clip_grad)
    for key in ("runtime.threads", "runtime.checkpoint_every_steps"):
        if OmegaConf.select(config, key) is not None:
            check_count(key, OmegaConf.select(config, key))
    if config.runtime.checkpoint_every_minutes is not None:
        check_positive("runtime.checkpoint_every_minutes", config.runtime.checkpoint_every_minutes)
    if config.runtime.workers is not None:
        check_not_negative("runtime.workers", config.runtime.workers)
    for key, check_number in (("num_experts", check_count), ("capacity_factor", check_positive)):
        if config[key] is not None or not is_dense(config):  # a dense run may say null
            check_number(key, config[key])
    for key in ("data.mean", "data.std"):
        _check_colour(key, OmegaConf.select(config, key))


def _check_colour(name: str, values: Any) -> None:
    if not isinstance(values, ListConfig) or len(values) != 3:
        raise ValueError(f"{name}={values} must be three numbers, for red, green and blue")
    check = check_positive if name == "data.std" else check_not_negative
    for value in values:
        check(name, value)
