"""Where a number comes from: the code, the libraries and the device."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("routerbench", "torch", "timm", "hydra-core", "numpy")


def provenance(device: torch.device) -> dict[str, Any]:
    """Commit, versions and device, by the names of a record."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "commit": _commit(Path(__file__).parents[1]),
        "versions": {"python": platform.python_version(), **versions},
        "device": device_name(device),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was not installed
        return None


def _commit(checkout: Path) -> str | None:
    """The commit of the checkout, marked where files differ from it; None for an installed package."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", checkout, *words], capture_output=True, text=True, check=True
        ).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()) != checkout.resolve():
            return None
        changed = git("status", "--porcelain", "--", "routerbench", "conf", "sweeps").strip()
        return git("rev-parse", "HEAD").strip() + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread{'s' if threads > 1 else ''}"
