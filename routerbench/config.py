"""The schema of a configuration, and what is refused before anything is built."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from routerbench.checks import check_count, check_flag, check_not_negative, check_one_of, check_positive

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
    "optim.layer_decay",
    "ema.decay",
    "mix.off_epoch",
    "optim.warmup_epochs",
    "optim.warmup_steps",
)


@dataclass
class Model:
    """The backbone."""

    name: str = MISSING
    """A timm model, or one of `routerbench.models`."""
    drop_path_rate: float = MISSING
    """Stochastic depth of the last block."""
    weights: str | None = MISSING
    """What training starts from: null (random), `pretrained` (timm's), a file, or the folder of a run."""
    new_head: bool = MISSING
    """Whether the classifier starts anew, whatever the weights hold of one."""
    resize: str = MISSING
    """How positions are resized for images of another size: bicubic (timm's way) or zoom (V-MoE's)."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the timm model, such as `depth`."""


@dataclass
class Optim:
    """Optimizer and schedule, by timm's names."""

    name: str = MISSING
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of this optimizer alone, such as `betas`."""
    lr: float = MISSING
    weight_decay: float = MISSING
    """Of all parameters but norms, biases, positions and class token."""
    expert_weight_decay: float | None = MISSING
    """Of the weight matrices of experts; null: as the others."""
    head_weight_decay: float | None = MISSING
    """Of the weight matrix of the classifier; null: as the others."""
    layer_decay: float | None = MISSING
    """Learning rate of a block over that of the next."""
    clip_grad: float | None = MISSING
    """Largest global norm of the gradient."""
    accumulation_steps: int = MISSING
    """Parts of a batch that go through the model one after the other, for one step."""
    schedule: str = MISSING
    schedule_arguments: dict[str, Any] = field(default_factory=dict)
    """Of this schedule alone, such as `decay_rate`."""
    warmup_epochs: int | None = MISSING
    warmup_steps: int | None = MISSING
    """Instead of epochs."""
    warmup_lr: float = MISSING
    min_lr: float = MISSING


@dataclass
class Loss:
    """The loss of the task (`routerbench.task_loss`)."""

    name: str = MISSING
    """softmax; sigmoid: summed over classes; sigmoid_mean: averaged over them."""
    label_smoothing: float = MISSING
    target_threshold: float | None = MISSING
    """Sigmoid targets above it count as 1, others as 0."""


@dataclass
class Mix:
    """Mixup and CutMix of neighbours in a batch (`routerbench.mixing`); none where both alphas are 0."""

    mixup_alpha: float = MISSING
    cutmix_alpha: float = MISSING
    probability: float = MISSING
    """Of a step to mix at all."""
    switch_probability: float = MISSING
    """Of CutMix, where there is Mixup too."""
    off_epoch: int | None = MISSING
    """The first epoch, counted from 0, without it."""


@dataclass
class Ema:
    """The running average of the weights, evaluated beside them."""

    decay: float | None = MISSING
    """Share that the average keeps in a step; null: there is no average."""
    warmup: bool = MISSING
    """Whether the decay grows to that, as timm's does."""
    ranked: bool = MISSING
    """Whether `test/...` is of the average, and `raw/test/...` of the weights, or the other way round."""


@dataclass
class Runtime:
    """Where and how a run is done, not what it finds (threads and backend may change last bits)."""

    results: str = MISSING
    """Folder of the records."""
    device: str = MISSING
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."""
    workers: int | None = MISSING
    """Processes that decode images; null: one for each core that this process may use."""
    decoded_cache_gib: float = MISSING
    """What the decoded images of a split may take, if all of them fit: they are not decoded again then."""
    threads: int | None = MISSING
    """CPU threads of torch; null: its own choice, which is all cores."""
    backend: str = MISSING
    """How MoE layers are computed: bmm, loop, grouped, one_hot; auto: the fastest here, by measurement."""
    compile: bool = MISSING
    """Whether torch.compile makes one program of the model."""
    channels_last: bool = MISSING
    """Whether convolutions keep the channels of a pixel side by side."""
    activation_checkpointing: bool = MISSING
    """Whether blocks are computed again in the backward pass, instead of kept."""
    deterministic: bool = MISSING
    """Whether a GPU may use nothing whose results differ from run to run; a CPU never does."""
    wandb: str = MISSING
    """offline, online or disabled."""
    log_every_steps: int = MISSING
    """Training steps between two rows of metrics.jsonl."""
    retry: bool = MISSING
    """Run again what failed or diverged."""
    retry_oom: bool = MISSING
    """After a lack of memory go on with half as many images at once, for the same batch."""
    checkpoint_every_steps: int | None = MISSING
    """Steps between two checkpoints."""
    checkpoint_every_minutes: float | None = MISSING
    """Minutes between two checkpoints."""
    keep_checkpoints: int = MISSING
    """How many of the latest checkpoints stay, beside the best by minival."""
    timeout_seconds: float = MISSING
    """For which processes wait for each other before they give up."""


@dataclass
class Parallel:
    """How a run is spread over processes, not what it finds (their number may change last bits)."""

    data: int = MISSING
    """Copies of the model, or of its shards."""
    shard: int = MISSING
    """Shares of every parameter."""
    expert: int = MISSING
    """Shares of the experts."""


@dataclass
class Config:
    """One run."""

    router: Any = MISSING
    model: Model = MISSING
    placement: Any = MISSING
    """last_2, every_2, last_half, stage, none, or a list of block indices."""
    num_experts: int | None = MISSING
    capacity_factor: float | None = MISSING
    """Slots per expert over the even share."""
    group: Any = MISSING
    """Tokens routed together: those of one `image`, or of a number of images."""
    expert_init: str | None = MISSING
    """shared, independent or upcycle: how experts start (see `Experts.from_dense`); null: as those of
    model.weights, an MoE run."""
    expert_mlp_ratio: float | None = MISSING
    """Hidden width of an expert over the width; null: the block's."""
    expert_dropout: float | None = MISSING
    """null: the block's."""
    extra_skip: bool | None = MISSING
    """A skip around the depthwise convolution of MoE blocks (Videau et al. 2025)."""
    seed: int = MISSING
    data: Any = MISSING
    augment: Any = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    optim: Optim = MISSING
    precision: str = MISSING
    """fp32, bf16 or fp16 autocast."""
    eval_every: int = MISSING
    """Epochs between evaluations; the last epoch is always evaluated."""
    loss: Loss = MISSING
    mix: Mix = MISSING
    ema: Ema = MISSING
    eval: dict[str, Any] = field(default_factory=dict)
    """What else is evaluated at the end, by name: files of `conf/eval`."""
    runtime: Runtime = MISSING
    parallel: Parallel = MISSING


def register_schema() -> None:
    """Make the schema known to Hydra, for `conf/train.yaml`."""
    ConfigStore.instance().store(name="schema", node=Config)


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
    check_one_of("precision", config.precision, ("fp32", "bf16", "fp16"))
    check_one_of("runtime.wandb", config.runtime.wandb, ("offline", "online", "disabled"))
    _check_ranges(config)
    if config.router.name == "dense" and "_target_" in config.router:
        raise ValueError("router.name=dense is not what this router is: say router=dense")
    if not isinstance(config.placement, str | ListConfig):
        raise ValueError(f"placement={config.placement} is neither a name nor a list of blocks")
    if config.data.path is not None and "path" not in config.data.source:
        raise ValueError(
            f"data.path={config.data.path} means nothing to data={config.data.name}: leave it out"
        )
    _check_parts(config)
    _check_parallel(config)
    if num_processes is not None:
        _check_processes(config, num_processes)
    if not is_dense(config):
        check_flag("extra_skip", config.extra_skip)
        _check_start(config.expert_init, config.model.weights)
    if (config.optim.warmup_epochs or 0) > config.epochs:
        raise ValueError(
            f"optim.warmup_epochs={config.optim.warmup_epochs} is more than epochs={config.epochs}: "
            "give at most that"
        )


def can_part(config: DictConfig, num_parts: int) -> bool:
    """Whether a batch has so many equal parts, of whole routing groups and of pairs to be mixed."""
    group = config.group if isinstance(config.group, int) and not is_dense(config) else 1
    return config.batch_size % (num_parts * math.lcm(group, 2 if mixes(config) else 1)) == 0


def mixes(config: DictConfig) -> bool:
    """Whether the images of a batch are mixed."""
    return bool(config.mix.mixup_alpha or config.mix.cutmix_alpha)


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
