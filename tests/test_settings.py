"""Every setting makes a difference: a test for each, at two values, which fails where the setting is ignored.

The difference is one in what the setting is for: batches, routings, what a run leaves on the disk and does on
its way, or what is refused. That it is part of a run's identity, or written in a record, is none.
"""

import copy
import importlib
import io
import json
import multiprocessing
import socket
import tarfile
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from routerbench import experiment, parts
from routerbench.build import configured_router
from routerbench.compose import compose_sweep
from routerbench.config import check, conf_dir
from routerbench.data.extra import imagenet_classes
from routerbench.fewshot import fewshot
from routerbench.identity import identity, run_id
from routerbench.linear_probe import linear_probe
from routerbench.records import run_folder, write_record
from routerbench.schema import Config
from routerbench.signals import Warned
from routerbench.sweep.run import run_sweep

# Python 3.12 warns that forking a process with threads may lock; torch's loader forks.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

Changes = Mapping[str, Any]
Observe = Callable[[Path, Path, Changes], Any]

# Of a run of two steps on eight images of 16 x 16.
WORDS = (
    "data=folder",
    "data.image_size=16",
    "augment=trivial",
    "router=dense",
    "+model.arguments={depth:1,embed_dim:16,num_heads:2}",
    "placement=[0]",
    "num_experts=4",
    "batch_size=4",
    "epochs=1",
    "optim.warmup_epochs=0",
    "runtime.wandb=disabled",
    "runtime.device=cpu",
    "runtime.workers=0",
    "runtime.threads=1",
    "runtime.backend=bmm",
    "runtime.log_every_steps=1",
)
FILES = "{root}/images"
CPU, FP32 = torch.device("cpu"), torch.autocast("cpu", enabled=False)
GROUPS = ("router", "data", "augment", "eval")  # whose files have settings of their own


@cache
def base() -> DictConfig:
    return compose_sweep(list(WORDS), None, False).configs[0]


@cache
def file_of(group: str, name: str) -> DictConfig:
    node = OmegaConf.load(conf_dir() / group / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    return node


def changed(root: Path, changes: Changes) -> DictConfig:
    """The configuration with these settings, a group by the name of a file; `{root}` stands for a folder."""
    config = copy.deepcopy(base())
    told = changes if "data" in changes else {"data.path": FILES, **changes}
    for key, value in sorted(told.items(), key=lambda one: one[0] not in GROUPS):  # which replace settings
        text = value.format(root=root) if isinstance(value, str) else value
        if key == "eval":
            node: Any = {value: file_of("eval", value)} if value else {}
        else:
            node = file_of(key, value) if key in GROUPS else text
        OmegaConf.update(config, key, copy.deepcopy(node), merge=False, force_add=True)
    return config


def outcome(observe: Callable[[], Any]) -> Any:
    """What is observed, or the refusal."""
    try:
        return observe()
    except ValueError as error:
        return str(error)


def run(config: DictConfig) -> str:
    console = Console(file=io.StringIO())
    return experiment.run(config, command="", repeat="", console=console, title="", warned=Warned())


@contextmanager
def watched() -> Iterator[Counter[Any]]:
    """Inside, what modules are called, how often and how."""
    seen: Counter[Any] = Counter()

    def note(module: nn.Module, _inputs: object) -> None:
        if isinstance(module, nn.Conv2d):
            laid_out = module.weight.is_contiguous(memory_format=torch.channels_last)
            seen["channels last", laid_out] += 1
        seen[type(module).__name__, module.training] += 1
        seen["threads", torch.get_num_threads()] += 1
        seen["deterministic", torch.are_deterministic_algorithms_enabled()] += 1

    hook = nn.modules.module.register_module_forward_pre_hook(note)
    with pytest.MonkeyPatch.context() as patch:  # as to compile takes a minute
        patch.setattr(nn.Module, "compile", lambda module: seen.update([f"compile {type(module).__name__}"]))
        try:
            yield seen
        finally:
            hook.remove()


def trained(root: Path, here: Path, changes: Changes) -> Any:
    """What a run does and leaves."""
    config = changed(root, {"runtime.results": f"{here}/results", **changes})
    with watched() as seen:
        run(config)
    folder = run_folder(Path(config.runtime.results), run_id(identity(config)))
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "done", record["error"]
    measured = ("images_per_second", "train_seconds", "peak_memory_gib")
    return {
        "seen": seen,
        "rows": (folder / "metrics.jsonl").read_text(),
        "metrics": record["metrics"],
        "weights": record["provenance"]["weights_sha256"],
        "cost": {name: number for name, number in record["cost"].items() if name not in measured},
        "blocks": record["placement_blocks"],
        "results": sorted(path.name for path in here.iterdir()),
        "files": sorted(path.name for path in chain(folder.iterdir(), folder.glob("checkpoint/*"))),
    }


def trained_or_refused(root: Path, here: Path, changes: Changes) -> Any:
    return outcome(lambda: trained(root, here, changes))


def trained_there(root: Path, here: Path, changes: Changes) -> Any:
    """In which folder a run leaves its own."""
    return trained(root, here, {"runtime.results": f"{here}/{changes['runtime.results']}"})["results"]


def trained_again(root: Path, here: Path, changes: Changes) -> Any:
    """What becomes of a run that has failed before."""
    config = changed(root, {"runtime.results": f"{here}/results", **changes})
    settings = identity(config)
    folder = run_folder(Path(config.runtime.results), run_id(settings))
    folder.mkdir(parents=True)
    failed = {"status": "failed", "error": "boom", "metrics": {}, "cost": {}, "provenance": {}}
    write_record(folder, {"run_id": run_id(settings), "config": settings, **failed})
    return run(config)


def trained_in_little_memory(root: Path, here: Path, changes: Changes) -> Any:
    """What becomes of a run that has room for two images at once."""

    def fill(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv2d) and module.training and len(inputs[0]) > 2:
            raise torch.OutOfMemoryError

    hook = nn.modules.module.register_module_forward_pre_hook(fill)
    try:
        return run(changed(root, {"runtime.results": f"{here}/results", **changes}))
    finally:
        hook.remove()


def loaded(root: Path, _here: Path, changes: Changes) -> Any:
    """The batches of two epochs, of the test and of what is held out."""
    config = changed(root, changes)
    check(config)
    with closing(parts.load_data(config)) as data:
        epochs = [data.train.epoch(0), data.train.epoch(1), data.test.epoch(0)]
        if data.minival is not None:
            epochs.append(data.minival.epoch(0))
        found = [
            [(hash(images.numpy().tobytes()), labels.tolist()) for images, labels in one] for one in epochs
        ]
        return found, data.class_names


def loaded_or_refused(root: Path, here: Path, changes: Changes) -> Any:
    return outcome(lambda: loaded(root, here, changes))


def augmented(root: Path, _here: Path, changes: Changes) -> list[int]:
    """The batches of an epoch."""
    with closing(parts.load_data(changed(root, changes))) as data:
        return [hash(images.numpy().tobytes()) for images, _ in data.train.epoch(0)]


def workers(root: Path, _here: Path, changes: Changes) -> int:
    """How many processes decode images."""
    before = len(multiprocessing.active_children())
    with closing(parts.load_data(changed(root, changes))) as data:
        batches = iter(data.train.epoch(0))
        next(batches)
        return len(multiprocessing.active_children()) - before


def loaded_once(root: Path, here: Path, changes: Changes) -> bool:
    """Whether a second epoch needs the files."""
    for label in "ab":
        save(here / "images" / "train" / label / "0.png", 0)
        save(here / "images" / "val" / label / "0.png", 0)
    config = changed(root, {"batch_size": 2, "data.path": f"{here}/images", **changes})
    with closing(parts.load_data(config)) as data:
        list(data.train.epoch(0))
        for path in here.rglob("*.png"):
            path.unlink()
        return outcome(lambda: len(list(data.train.epoch(0)))) == 1


def routed(root: Path, _here: Path, changes: Changes) -> Any:
    """What a router decides of eight tokens a group, in training, in evaluation and after a step."""
    config = changed(root, changes)
    torch.manual_seed(0)
    tokens = torch.randn(2, 8, 6)
    router = configured_router(config.router, 6, config.num_experts)

    def routing() -> Any:
        found = router(tokens)
        weights = [each.detach().numpy().tobytes() for each in (*found.plan.dense(), found.plan.gates)]
        return weights, {name: value.item() for name, value in (found.losses | found.measures).items()}

    in_training = routing()
    router.after_step()
    return in_training, router.eval() and routing()


def probed(root: Path, _here: Path, changes: Changes) -> Any:
    """What probes find of the features of a model that is not trained."""
    config = changed(root, changes)
    torch.manual_seed(0)
    data = parts.load_data(config)
    model = parts.build_model(config, data.num_classes)
    few, linear = parts.load_fewshot(config, data), parts.load_linear_probe(config, data)
    if few is not None:
        return fewshot(model, few.probe, few.labels, few.load, few.test.epoch(0), CPU, FP32)
    assert linear is not None
    found = linear_probe(model, linear.probe, linear.train.epoch(0), linear.test.epoch(0), CPU, FP32)
    return found, [places.tolist() for places in linear.probe.split(8)]


def further(root: Path, _here: Path, changes: Changes) -> Any:
    """The further images that a model of the run's or of ImageNet's classes is evaluated on."""
    config = changed(root, changes)
    classes = ("a", "b") if "folder" in config.eval else imagenet_classes()
    return outcome(
        lambda: {name: len(found.loader.dataset) for name, found in parts.load_extra(config, classes).items()}
    )


def swept(_root: Path, here: Path, changes: Changes) -> list[int]:
    """The seeds of a sweep whose file says so."""
    (here / "sweep").mkdir(parents=True)
    sweep = {"hydra": {"mode": "MULTIRUN", "sweeper": {"params": {"epochs": 1}}}, **changes}
    (here / "sweep" / "own.yaml").write_text(f"# @package _global_\n{OmegaConf.to_yaml(sweep)}")
    return [config.seed for config in compose_sweep(["+sweep=own"], str(here), True).configs]


def waited(root: Path, here: Path, changes: Changes) -> str:
    """What the first of two processes says that has waited for the second."""
    words = [f"{key}={value}" for key, value in changes.items()]
    of_folders = [f"data.path={root}/images", f"runtime.results={here}", "parallel.data=2"]
    sweep = compose_sweep([*WORDS, *of_folders, *words], None, False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    first = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in first.items():
            patch.setenv(name, value)
        with pytest.raises(dist.DistStoreError) as gave_up:
            run_sweep(sweep, [], [], None)
    return str(gave_up.value)


@dataclass(frozen=True)
class Told:
    """By what a setting is told, at which two values, and what it takes beside."""

    observe: Observe
    one: Any
    other: Any
    beside: Changes = field(default_factory=dict)


WEIGHTS = {"model.weights": "{root}/weights.safetensors", "expert_init": "upcycle"}
MOE = {"router": "token_choice"}
SIZE = {"depth": 1, "embed_dim": 16, "num_heads": 2}
MIXED = {"mix.mixup_alpha": 0.8}
AVERAGED = {"ema.decay": 0.9}
TWO_EPOCHS = {"epochs": 2}
CONVNEXT = {"model.name": "pocket_convnext_iso", "model.arguments": {"depth": 1, "dim": 8}}
OFTEN = {"runtime.checkpoint_every_steps": 1, "runtime.checkpoint_every_minutes": None}

OF_RUNS = {
    "model.name": Told(trained, "pocket_vit", "vit_tiny_patch16_224"),
    "model.drop_path_rate": Told(trained, 0.0, 0.9, {"model.arguments": {**SIZE, "depth": 2}}),
    "model.weights": Told(trained, None, "{root}/weights.safetensors"),
    "model.new_head": Told(trained, False, True, WEIGHTS),
    "model.resize": Told(trained, "bicubic", "zoom", {**WEIGHTS, "data.image_size": 24}),
    "model.arguments": Told(trained, SIZE, {**SIZE, "num_heads": 4}),
    "optim.name": Told(trained, "adamw", "sgd"),
    "optim.arguments": Told(trained, {}, {"betas": [0.5, 0.9]}),
    "optim.lr": Told(trained, 0.004, 0.002),
    "optim.weight_decay": Told(trained, 0.05, 0.9),
    "optim.expert_weight_decay": Told(trained, None, 0.9, MOE),
    "optim.head_weight_decay": Told(trained, None, 0.9),
    "optim.layer_decay": Told(trained, None, 0.5),
    "optim.clip_grad": Told(trained, None, 1e-3),
    "optim.accumulation_steps": Told(trained, 1, 2),
    "optim.schedule": Told(trained, "cosine", "poly"),
    "optim.schedule_arguments": Told(trained, {}, {"k_decay": 2.0}),
    "optim.warmup_epochs": Told(trained, 0, 1),
    "optim.warmup_steps": Told(trained, 0, 1, {"optim.warmup_epochs": None}),
    "optim.warmup_lr": Told(trained, 1e-6, 1e-3, {"optim.warmup_epochs": 1}),
    "optim.min_lr": Told(trained, 1e-5, 1e-3),
    "placement": Told(trained, [0], "none", MOE),
    "num_experts": Told(trained, 4, 2, MOE),
    "slots_per_token": Told(trained, 1, 2, MOE),
    "capacity_factor": Told(trained, 1.0, 0.5, MOE),
    "group": Told(trained, "image", 2, MOE),
    "expert_init": Told(trained, "shared", "independent", MOE),
    "expert_mlp_ratio": Told(trained, None, 2, MOE),
    "expert_dropout": Told(trained, None, 0.5, MOE),
    "extra_skip": Told(trained, False, True, {**MOE, **CONVNEXT}),
    "seed": Told(trained, 0, 1),
    "epochs": Told(trained, 1, 2),
    "batch_size": Told(trained, 4, 8),
    "precision": Told(trained, "fp32", "bf16"),
    "eval_every": Told(trained, 1, 2, TWO_EPOCHS),
    "loss.name": Told(trained, "softmax", "sigmoid"),
    "loss.label_smoothing": Told(trained, 0.0, 0.1),
    "loss.target_threshold": Told(trained, None, 0.2, {**MIXED, "loss.name": "sigmoid"}),
    "mix.mixup_alpha": Told(trained, 0.0, 0.8),
    "mix.cutmix_alpha": Told(trained, 0.0, 1.0),
    "mix.probability": Told(trained, 1.0, 0.0, MIXED),
    "mix.switch_probability": Told(trained, 0.0, 1.0, {**MIXED, "mix.cutmix_alpha": 1.0}),
    "mix.off_epoch": Told(trained, None, 1, {**MIXED, **TWO_EPOCHS}),
    "ema.decay": Told(trained, None, 0.9),
    "ema.warmup": Told(trained, False, True, AVERAGED),
    "ema.ranked": Told(trained, True, False, AVERAGED),
    "eval": Told(trained, None, "folder", {"eval.folder.path": "{root}/images/val"}),
    "runtime.results": Told(trained_there, "one", "other"),
    "runtime.device": Told(trained_or_refused, "cpu", "cuda:99"),
    "runtime.workers": Told(workers, 0, 1),
    "runtime.decoded_cache_gib": Told(loaded_once, 0, 1),
    "runtime.threads": Told(trained, 1, 2),
    "runtime.backend": Told(trained, "bmm", "loop", MOE),
    "runtime.compile": Told(trained, False, True),
    "runtime.channels_last": Told(trained, False, True),
    "runtime.activation_checkpointing": Told(trained, False, True),
    "runtime.deterministic": Told(trained, False, True),
    "runtime.wandb": Told(trained, "disabled", "offline"),
    "runtime.log_every_steps": Told(trained, 1, 2),
    "runtime.retry": Told(trained_again, None, "failed"),
    "runtime.retry_oom": Told(trained_in_little_memory, False, True),
    "runtime.checkpoint_every_steps": Told(trained, None, 1),
    "runtime.checkpoint_every_minutes": Told(trained, None, 1e-9),
    "runtime.keep_checkpoints": Told(trained, 1, 3, OFTEN),
    "runtime.timeout_seconds": Told(waited, 0.5, 1.5),
    "union": Told(swept, [{"seed": "0,1"}], [{"seed": "0"}, {"seed": "2"}]),
}

# By their last name, for every file of conf/router, and below of conf/augment, that has them.
COSINE = {"router.scorer": "cosine"}
HALF = {"capacity_factor": 0.5}
NEWTON = {"router.solver": "newton"}
OF_ROUTERS = {
    "top_k": Told(routed, 1, 2),
    "top_k_eval": Told(routed, None, 2),
    "batch_priority": Told(routed, False, True, {**HALF, "slots_per_token": 2}),
    "scorer": Told(routed, "linear", "cosine"),
    "projection_width": Told(routed, 1, 3, COSINE),
    "temperature": Told(routed, 0.3, 1.0, COSINE),
    "noise_std": Told(routed, 0.0, 1.0),
    "normalize_combine": Told(routed, False, True),
    "importance_weight": Told(routed, 0.0, 0.1),
    "load_weight": Told(routed, 0.0, 0.1, {"router.noise_std": 1.0}),
    "gshard_weight": Told(routed, 0.0, 0.1),
    "z_weight": Told(routed, 0.0, 0.1),
    "capacity_factor": Told(routed, 0.5, 1.0),
    "capacity": Told(routed, None, 1),
    "capacity_rounding": Told(routed, "ceil", "round", {"capacity_factor": 0.6}),  # 1.2 of 8 tokens by 4
    "capacity_multiple_of": Told(routed, 1, 4),
    "capacity_factor_eval": Told(routed, None, 0.5),
    "dropless": Told(routed, False, True, HALF),
    "num_iterations": Told(routed, 1, 5),
    "regularisation": Told(routed, 1.0, 0.1),
    "solver": Told(routed, "adam", "newton"),
    "learning_rate": Told(routed, None, 1.0),
    "tolerance": Told(routed, None, 0.5, NEWTON),
    "slots_per_expert": Told(routed, None, 3),
    "bias_update_rate": Told(routed, 0.001, 0.5),
}
ERASED = {"augment.random_erasing": 1.0}
OF_AUGMENTS = {
    "padding": Told(augmented, 0, 2),
    "hflip": Told(augmented, 0.0, 1.0),
    "vflip": Told(augmented, 0.0, 1.0),
    "transpose": Told(augmented, 0.0, 1.0),
    "scale": Told(augmented, [0.5, 0.6], [1.0, 1.0]),
    "ratio": Told(augmented, [0.5, 0.5], [2.0, 2.0]),
    "rand_augment": Told(augmented, None, "rand-n2-m10"),
    "color_jitter": Told(augmented, 0.0, 0.4),
    "interpolation": Told(augmented, "bilinear", "bicubic"),
    "random_erasing": Told(augmented, 0.0, 1.0),
    "random_erasing_mode": Told(augmented, "const", "pixel", ERASED),
    "num_repeats": Told(augmented, 1, 2),
}
OF_IMAGES = {
    "train_split": Told(loaded, "train", "train[:75%]"),
    "minival_split": Told(loaded, None, "train[75%:]", {"data.train_split": "train[:75%]"}),
    "image_size": Told(loaded, 16, 24),
    "mean": Told(loaded, [0.5, 0.5, 0.5], [0.5, 0.5, 0.4]),
    "std": Told(loaded, [0.5, 0.5, 0.5], [0.5, 0.5, 0.4]),
}
MISSING = Told(loaded_or_refused, "{root}/nowhere", "{root}/elsewhere")
OF_DATA = {
    "cifar10": {"path": MISSING},
    "cifar100": {"path": MISSING},
    "digits": {
        "path": Told(loaded_or_refused, None, "{root}/images"),
        **OF_IMAGES,
        "train_split": Told(loaded, "train[:8]", "train[:12]"),
        "minival_split": Told(loaded, None, "train[8:16]"),
    },
    "fashion_mnist": {"path": MISSING},
    "folder": {
        "path": Told(loaded, FILES, "{root}/others"),
        "class_map": Told(loaded, None, "{root}/b.txt"),
        "test_split": Told(loaded, None, "train"),
        "on_corrupt": Told(loaded_or_refused, "error", "skip", {"data.path": "{root}/corrupt"}),
        "crop_pct": Told(loaded, 0.875, 0.5),
        "interpolation": Told(loaded, "bilinear", "bicubic"),
        **OF_IMAGES,
    },
    "hfds": {
        "path": Told(loaded_or_refused, "{root}/hub", "{root}/nowhere"),
        "image_key": Told(loaded, "image", "mirrored"),
        "label_key": Told(loaded, "label", "opposite"),
        "class_map": Told(loaded, None, "{root}/names.txt"),
        "train_split": Told(loaded, "train", "test"),
        "test_split": Told(loaded, "validation", "test"),
    },
    "torchvision": {"path": MISSING, "dataset": Told(loaded_or_refused, "mnist", "svhn")},
    "wds": {
        "path": Told(loaded_or_refused, "{root}/shards", "{root}/nowhere"),
        "label_key": Told(loaded, None, "opposite"),
        "class_map": Told(loaded, None, "{root}/names.txt"),
        "train_split": Told(loaded, "train", "test"),
        "test_split": Told(loaded, "validation", "test"),
    },
}
DIGITS = {"data": "digits", "data.train_split": "train[:8]"}
BESIDE_DATA = {
    "digits": {**DIGITS, "augment": "none"},
    "folder": {"data.path": FILES, "data.image_size": 16},
    "hfds": {"data.path": "{root}/hub", "data.image_size": 16},
    "wds": {"data.path": "{root}/shards", "data.image_size": 16},
    "torchvision": {"data.path": "{root}/nowhere", "data.dataset": "mnist"},
}
OF_EVAL = {
    "fewshot": {
        "shots": Told(probed, [1], [2]),
        "num_draws": Told(probed, 2, 3),
        "seed": Told(probed, 0, 1),
        "select": Told(probed, "held_out", "published"),
        "l2": Told(probed, [1e-3], [1e3]),
    },
    "linear_probe": {
        "l2": Told(probed, [1e-6], [10.0]),
        "held_out": Told(probed, 0.2, 0.5),
        "seed": Told(probed, 0, 1),
    },
    "folder": {"path": Told(further, "{root}/images/val", "{root}/images/train")},
    "imagenet_a": {
        "path": Told(further, "{root}/nowhere", FILES),
        "subset": Told(further, "imagenet_a", "imagenet_r"),
    },
    "imagenet_c": {
        "path": Told(further, "{root}/nowhere", "{root}/corruptions"),
        "corruptions": Told(further, ["fog"], ["snow"]),
        "severities": Told(further, [1], [2]),
    },
    "imagenet_r": {
        "path": Told(further, "{root}/nowhere", FILES),
        "subset": Told(further, "imagenet_r", None),
    },
    "imagenet_real": {
        "path": Told(further, "{root}/nowhere", FILES),
        "labels": Told(further, None, "{root}/names.txt"),
    },
    "imagenet_sketch": {
        "path": Told(further, "{root}/nowhere", FILES),
        "subset": Told(further, None, "imagenet_a"),
    },
    "imagenet_v2": {"path": Told(further, "{root}/nowhere", FILES)},
}
BESIDE_EVAL = {
    "fewshot": {"eval.fewshot.shots": [3]},
    "linear_probe": {},
    "imagenet_c": {"eval.imagenet_c.path": "{root}/corruptions"},
}
MANY = "of many processes, each layout of which tests/test_many_ranks.py trains"
NET = "whether files are fetched, which takes the net"
NOT_OBSERVED = {
    "parallel.data": MANY,
    "parallel.shard": MANY,
    "parallel.expert": MANY,
    "cifar10: data.download": NET,
    "cifar100: data.download": NET,
    "torchvision: data.download": NET,
}


def of_schema(node: type, prefix: str = "") -> Iterator[str]:
    """Every setting of the schema but the groups."""
    kinds = typing.get_type_hints(node)
    for each in fields(node):
        if is_dataclass(kinds[each.name]):
            yield from of_schema(kinds[each.name], f"{prefix}{each.name}.")
        elif prefix or each.name not in ("router", "data", "augment"):
            yield f"{prefix}{each.name}"


def of_files(group: str) -> Iterator[tuple[str, str]]:
    """The settings of the files of a group, but for their names: what they are shows in all others."""
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        yield from (
            (path.stem, str(key)) for key in file_of(group, path.stem) if key not in ("name", "_target_")
        )


def every_setting() -> Iterator[tuple[str, Told | None, Changes, str]]:
    """What each is called here, by what it is told, what else it takes in its group, and its key."""
    for key in of_schema(Config):
        yield key, OF_RUNS.get(key), {}, key
    for name, key in of_files("router"):
        yield f"{name}: router.{key}", OF_ROUTERS.get(key), {"router": name}, f"router.{key}"
    for name, key in of_files("augment"):
        beside = {"augment": name, **(DIGITS if name in ("crop_flip", "dihedral") else {})}
        yield f"{name}: augment.{key}", OF_AUGMENTS.get(key), beside, f"augment.{key}"
    for name, key in of_files("data"):
        # What its source does not take is read for all sets alike: for those of files, and those in memory.
        if key != "source" and (name in ("folder", "digits") or key in file_of("data", name).source):
            beside = {"data": name, **BESIDE_DATA.get(name, {})}
            yield f"{name}: data.{key}", OF_DATA.get(name, {}).get(key), beside, f"data.{key}"
    for name, key in of_files("eval"):
        beside = {"eval": name, **BESIDE_EVAL.get(name, {f"eval.{name}.path": FILES})}
        yield f"{name}: eval.{key}", OF_EVAL.get(name, {}).get(key), beside, f"eval.{name}.{key}"


TOLD = {called: (told, beside, key) for called, told, beside, key in every_setting()}


def save(path: Path, number: int) -> None:
    """An image of 24 x 20 that is noise, another for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(number)).save(path)


def noise(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def save_folder(folder: Path, first: int) -> None:
    """Classes a and b, with four images each to train on and three to test on."""
    for place, (part, label, number) in enumerate(
        (part, label, number)
        for part, count in (("train", 4), ("val", 3))
        for label in "ab"
        for number in range(count)
    ):
        save(folder / part / label / f"{number}.png", first + place)


def save_shards(folder: Path) -> None:
    """Three splits of eight images, with another label in their .json."""
    folder.mkdir()
    for first, split in enumerate(("train", "validation", "test")):
        with tarfile.open(folder / f"set-{split}-000.tar", "w") as shard:
            for number in range(8):
                save(folder / "one.png", 100 * first + number)
                label = number % 2
                contents = {
                    "png": (folder / "one.png").read_bytes(),
                    "cls": b"%d" % label,
                    "json": json.dumps({"opposite": 1 - label}).encode(),
                }
                for ending, content in contents.items():
                    member = tarfile.TarInfo(f"{number}.{ending}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    (folder / "one.png").unlink()


def save_hub(folder: Path, datasets: Any) -> None:
    """The same as a data set of the hub."""
    folder.mkdir()
    classes = datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features(
        {"image": datasets.Image(), "mirrored": datasets.Image(), "label": classes, "opposite": classes}
    )
    for first, split in enumerate(("train", "validation", "test")):
        images = [Image.fromarray(noise(100 * first + number)) for number in range(8)]
        labels = [number % 2 for number in range(8)]
        rows = {
            "image": images,
            "mirrored": [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images],
            "label": labels,
            "opposite": [1 - label for label in labels],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of all files that settings name."""
    datasets = importlib.import_module("datasets")
    root = tmp_path_factory.mktemp("root")
    save_folder(root / "images", 0)
    save_folder(root / "others", 50)
    save_folder(root / "corrupt", 0)
    (root / "corrupt" / "train" / "a" / "1.png").write_text("no image")
    for part in ("fog/1", "fog/2", "snow/1"):
        save(root / "corruptions" / part / "a" / "0.png", 0)
    (root / "b.txt").write_text("b\n")
    (root / "names.txt").write_text("one\nother\n")
    save_shards(root / "shards")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as runtime.deterministic=true would
        datasets.disable_progress_bars()
        save_hub(root / "hub", datasets)
        torch.manual_seed(7)
        weights = parts.build_model(changed(root, {}), 2).state_dict()
        save_file(weights, root / "weights.safetensors")
        yield root
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def is_default(key: str, value: object) -> bool:
    """Whether nothing changes by this: one observation then stands for all settings at their defaults."""
    return key.partition(".")[0] not in GROUPS and OmegaConf.select(base(), key) == value


@pytest.fixture(scope="module")
def observed(root: Path) -> Callable[[Observe, Changes], Any]:
    """A function to what is observed of some settings, once for all who ask."""
    known: dict[str, Any] = {}

    def look(observe: Observe, changes: Changes) -> Any:
        own = {key: value for key, value in changes.items() if not is_default(key, value)}
        key = f"{observe.__name__} {sorted(own.items())}"
        if key not in known:
            known[key] = observe(root, root / f"run-{len(known)}", own)
        return known[key]

    return look


@pytest.mark.parametrize("setting", [setting for setting in TOLD if setting not in NOT_OBSERVED])
def test_it_makes_a_difference(setting: str, observed: Callable[[Observe, Changes], Any]) -> None:
    told, beside, key = TOLD[setting]
    assert told is not None, "a new setting: say above at which two values what differs, or why nothing can"
    one, other = (
        observed(told.observe, {**beside, **told.beside, key: value}) for value in (told.one, told.other)
    )
    assert one != other


@pytest.mark.parametrize(
    ("observe", "changes"),
    [
        (trained, {**MOE, **AVERAGED, **OFTEN}),
        (loaded, {}),
        (routed, MOE),
        (probed, {"eval": "linear_probe"}),
    ],
)
def test_nothing_differs_by_itself(observe: Observe, changes: Changes, root: Path, tmp_path: Path) -> None:
    assert observe(root, tmp_path / "one", changes) == observe(root, tmp_path / "other", changes)


def test_what_is_told_is_a_setting() -> None:
    assert OF_RUNS.keys() | NOT_OBSERVED.keys() <= TOLD.keys()
    assert not [setting for setting in NOT_OBSERVED if TOLD[setting][0] is not None]
    assert OF_ROUTERS.keys() == {key for _, key in of_files("router")}
    assert OF_AUGMENTS.keys() == {key for _, key in of_files("augment")}
