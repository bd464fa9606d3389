"""`counts.json`: what models were counted to cost and where they would run, so that torch is not asked again.

It may be lost or damaged at any time; what other code or other libraries have counted is not used.
"""

import hashlib
import json
import os
import re
import sys
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from routerbench.overview.estimate import Size
from routerbench.provenance import processor, version_of
from routerbench.records import write_text

FILE = "counts.json"
LIBRARIES = ("torch", "timm")
GPUS = ("nvidia*", "kfd", "dxg")  # in /dev, where a driver is
THREADS = ("OMP_", "MKL_", "KMP_", "GOMP_")  # the environment's word on them
OUTSIDE = re.compile(r'"_target_": "(?!routerbench\.)')  # of which the code says nothing


@dataclass
class Counts:
    """What was found before, by digests of what it hangs on."""

    sizes: dict[str, Size] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)

    def device(self, config: DictConfig) -> str:
        """As `device_here`, without torch where it is known."""
        question = _of_device(config)
        if question in self.devices:
            return self.devices[question]
        is_new = "torch" not in sys.modules  # else the process may have changed its number of threads
        from routerbench.overview.possible import device_here

        device = device_here(config)
        if question is not None and is_new:
            self.devices[question] = device
        return device

    def size(self, config: DictConfig, device: str) -> Size:
        """As `size_of`: what is known was built once by this code, and can be."""
        question = _of_size(config, device)
        if question in self.sizes:
            return self.sizes[question]
        from routerbench.overview.possible import size_of

        size = size_of(config)
        if question is not None:
            self.sizes[question] = size
        return size


def load(results: Path) -> Counts:
    """What stands in the folder; nothing where that is missing, damaged or by other code."""
    try:
        content = json.loads((results / FILE).read_bytes())
        if content["code"] != _code():
            return Counts()
        sizes = {
            str(name): Size(int(flops), int(params)) for name, (flops, params) in content["sizes"].items()
        }
        return Counts(sizes, {str(name): str(device) for name, device in content["devices"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Counts()


def save(results: Path, counts: Counts) -> None:
    """Put it down for the next who asks, unless there is no such folder or the disk does not take it."""
    sizes = {name: astuple(size) for name, size in counts.sizes.items()}
    content = {"code": _code(), "sizes": sizes, "devices": counts.devices}
    with suppress(OSError):
        write_text(results / FILE, json.dumps(content) + "\n")


def _of_device(config: DictConfig) -> str | None:
    """What the name of a processor hangs on; None where there may be a GPU, which may come and go."""
    runtime = config.runtime
    if sys.platform != "linux" or any(found for gpu in GPUS for found in Path("/dev").glob(gpu)):
        return None
    threads = {name: value for name, value in os.environ.items() if name.startswith(THREADS)}
    cores = sorted(os.sched_getaffinity(0))
    return _digest([processor(), cores, threads, runtime.device, runtime.threads])


def _of_size(config: DictConfig, device: str) -> str | None:
    """All of the configuration but seed and folder, and the device; None where others' code has a part."""
    settings: Any = OmegaConf.to_container(config, resolve=True)
    del settings["seed"]
    settings["runtime"]["results"] = bool(settings["runtime"]["results"])
    return None if OUTSIDE.search(json.dumps(settings)) else _digest([settings, device])


@cache
def _code() -> str:
    """All of this package, and the libraries that models are made of."""
    code = hashlib.sha256(json.dumps([version_of(name) for name in LIBRARIES]).encode())
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        code.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return code.hexdigest()


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]
