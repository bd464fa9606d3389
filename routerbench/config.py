"""The schema of a configuration, and what is refused before anything is built."""

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
    "optim.warmup_epochs",
    "optim.warmup_lr",
    "optim.min_lr",
    "runtime.decoded_cache_gib",
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
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the timm model, such as `depth`."""


@dataclass
class Optim:
    """Optimizer and schedule, by timm's names."""

    name: str = MISSING
    lr: float = MISSING
    weight_decay: float = MISSING
    """Of all parameters but norms, biases, positions and class token."""
    expert_weight_decay: float | None = MISSING
    """Of the weight matrices of experts; null: as the others."""
    clip_grad: float | None = MISSING
    """Largest global norm of the gradient."""
    accumulation_steps: int = MISSING
    """Parts of a batch that go through the model one after the other, for one step."""
    schedule: str = MISSING
    warmup_epochs: int = MISSING
    warmup_lr: float = MISSING
    min_lr: float = MISSING


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
    deterministic: bool = MISSING
    """Whether a GPU may use nothing whose results differ from run to run; a CPU never does."""
    wandb: str = MISSING
    """offline, online or disabled."""
    log_every_steps: int = MISSING
    """Training steps between two rows of metrics.jsonl."""
    retry: bool = MISSING
    """Run again what failed or diverged."""


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
    """shared, independent or upcycle: how experts start (see `Experts.from_dense`)."""
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
    eval: dict[str, Any] = field(default_factory=dict)
    """What else is evaluated at the end, by name: files of `conf/eval`."""
    runtime: Runtime = MISSING


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


def check(config: DictConfig) -> None:
    """Refuse settings that are out of range or do not fit each other; raises ValueError."""
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
    group, batch_size = config.group, config.batch_size
    parts = config.optim.accumulation_steps
    if batch_size % parts:
        raise ValueError(
            f"optim.accumulation_steps={parts} does not divide the batch: batch_size={batch_size} "
            "is no multiple of it"
        )
    if not is_dense(config) and isinstance(group, int) and group > 0 and batch_size // parts % group:
        of_part = f" / optim.accumulation_steps={parts}" if parts > 1 else ""
        raise ValueError(
            f"group={group} does not tile the batch: batch_size={batch_size}{of_part} is no multiple of it"
        )
    if not is_dense(config):
        check_flag("extra_skip", config.extra_skip)
        _check_start(config.expert_init, config.model.weights)
    if config.optim.warmup_epochs > config.epochs:
        raise ValueError(
            f"optim.warmup_epochs={config.optim.warmup_epochs} is more than epochs={config.epochs}: "
            "give at most that"
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
            "or independent"
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
    ):
        check_count(key, OmegaConf.select(config, key))
    for key in NOT_NEGATIVE:
        check_not_negative(key, OmegaConf.select(config, key))
    check_positive("optim.lr", config.optim.lr)
    if config.seed > MAX_SEED:
        raise ValueError(f"seed={config.seed} is more than {MAX_SEED}: give at most that")
    if config.model.drop_path_rate >= 1:
        raise ValueError(f"model.drop_path_rate={config.model.drop_path_rate} must be a number below 1")
    if config.optim.expert_weight_decay is not None:
        check_not_negative("optim.expert_weight_decay", config.optim.expert_weight_decay)
    if config.optim.clip_grad is not None:
        check_positive("optim.clip_grad", config.optim.clip_grad)
    if config.runtime.workers is not None:
        check_not_negative("runtime.workers", config.runtime.workers)
    if config.runtime.threads is not None:
        check_count("runtime.threads", config.runtime.threads)
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
