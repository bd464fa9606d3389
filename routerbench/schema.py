"""The schema of a configuration: every setting, its type and one line of meaning."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf


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
    retry: str | None = MISSING
    """Which outcomes are to be run again: failed, diverged, oom or all; null: none."""
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
    slots_per_token: int | float | None = MISSING
    """Of every router: the choices of a token, or of the others what capacity_factor is of."""
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
    union: list[dict[str, Any]] | None = MISSING
    """Of a sweep: what stands beside each other, each by keys and values like hydra.sweeper.params."""


def register_schema() -> None:
    """Make the schema known to Hydra, for `conf/train.yaml`, and to OmegaConf the product of two settings."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("times", _times, replace=True)


def _times(a: int | float | None, b: int | float | None) -> int | float | None:
    return None if a is None or b is None else a * b
