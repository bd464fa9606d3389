"""What a run is: the settings that can change a number, and the names that are made of them."""

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from routerbench.config import is_dense

# What a dense run has not.
OF_MOE = (
    "num_experts",
    "capacity_factor",
    "group",
    "expert_init",
    "expert_mlp_ratio",
    "expert_dropout",
    "extra_skip",
)
# What is no part of a run: where it is done, and what only makes other settings or other runs.
NOT_OF_A_RUN = ("runtime", "parallel", "slots_per_token", "union")
# What a run from random weights has not.
OF_WEIGHTS = ("new_head", "resize")

# Settings that are younger than the first records, each with the value that means what was done before it:
# at that value it is no part of an id, so that old records keep theirs.
LATER = {
    "eval": {},
    "data.train_split": "train",
    "data.minival_split": None,
    "data.test_split": None,
    "data.class_map": None,
    "data.on_corrupt": "error",
    "data.crop_pct": 0.875,
    "data.interpolation": "bicubic",
    "data.source.train_split": "train",
    "data.source.test_split": None,
    "data.source.class_map": None,
    "augment.color_jitter": 0.0,
    "augment.random_erasing": 0.0,
    "augment.random_erasing_mode": "pixel",
    "augment.num_repeats": 1,
    "optim.arguments": {},
    "optim.schedule_arguments": {},
    "optim.warmup_steps": None,
    "optim.head_weight_decay": None,
    "optim.layer_decay": None,
    "loss": {"name": "softmax", "label_smoothing": 0.0, "target_threshold": None},
    "mix": {
        "mixup_alpha": 0.0,
        "cutmix_alpha": 0.0,
        "probability": 1.0,
        "switch_probability": 0.5,
        "off_epoch": None,
    },
    "ema": {"decay": None, "warmup": False, "ranked": True},
}


def identity(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration of all that can change a number.

    A dense run has no MoE setting, so that `router=dense` and `placement=none` are one run, shared by all
    placements and numbers of experts.
    """
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    settings = {str(key): value for key, value in container.items() if key not in NOT_OF_A_RUN}
    for node in (settings["data"], settings["data"]["source"]):
        node.pop("download", None)  # how the files came does not change them
    if settings["model"]["weights"] is None:  # what is done with them means nothing then
        settings["model"] = {
            key: settings["model"][key] for key in settings["model"] if key not in OF_WEIGHTS
        }
    if settings["group"] == 1:
        settings["group"] = "image"
    placement = settings["placement"]
    if isinstance(placement, list) and all(isinstance(index, int) for index in placement):
        settings["placement"] = sorted(placement)
    if is_dense(config):
        settings |= {"router": {"name": "dense"}, "placement": "none", **dict.fromkeys(OF_MOE)}
        settings["optim"]["expert_weight_decay"] = None
    return settings


def run_id(settings: dict[str, Any]) -> str:
    """The name of a run: readable, and as unique as the hash of its settings."""
    return f"{_prefix(settings)}-s{settings['seed']}-{_digest(settings)}"


def group_id(settings: dict[str, Any]) -> str:
    """The name of all runs that differ by their seed alone."""
    return f"{_prefix(settings)}-{_digest({key: value for key, value in settings.items() if key != 'seed'})}"


def twin_id(settings: dict[str, Any]) -> str:
    """The name that a dense run shares with every MoE run of the same backbone, data and training, whatever
    its router, placement and seed.
    """
    return _digest(
        {key: settings[key] for key in settings if key not in ("router", "placement", "seed", *OF_MOE)}
    )


def data_id(settings: dict[str, Any]) -> str:
    """The same for runs on the same batches."""
    return _digest({key: settings[key] for key in ("data", "augment", "batch_size")})


def _prefix(settings: dict[str, Any]) -> str:
    names = [settings["data"]["name"], settings["model"]["name"], settings["router"]["name"]]
    # A name may hold what a file name cannot, such as the slash of a model on a hub.
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in str(name)) for name in names)


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps(_canonical(_without_later(settings)), sort_keys=True).encode()
    ).hexdigest()[:10]


def _without_later(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings but those of `LATER` that have the value given there."""
    kept = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if key not in LATER or value != LATER[key]:
            kept[name] = _without_later(value, f"{key}.") if isinstance(value, dict) else value
    return kept


def _canonical(node: Any) -> Any:
    """The same for 1 and 1.0, which are one setting written in two ways."""
    if isinstance(node, dict):
        return {key: _canonical(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_canonical(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node
