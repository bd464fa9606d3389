"""Where a number comes from: the code, the libraries and the device."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_PACKAGES = ("routerbench", "torch", "timm", "hydra-core", "numpy")


def provenance(device: "torch.device") -> dict[str, Any]:
    """Commit, versions and device, by the names of a record."""
    versions = {name: version_of(name) for name in _PACKAGES}
    return {
        "commit": _commit(Path(__file__).parents[1]),
        "versions": {"python": platform.python_version(), **versions},
        "device": device_name(device),
    }


def version_of(package: str) -> str | None:
    """Of an installed package; None of a checkout that was not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
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


def device_name(device: "torch.device") -> str:
    """The name of the GPU, or of the processor with the number of threads."""
    import torch  # a second, for which who asks for the processor alone need not wait

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def processor() -> str:
    """The name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
