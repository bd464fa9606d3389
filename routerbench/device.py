"""From a configuration to the device that it runs on, and the precision."""

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str, setting: str = "runtime.device") -> torch.device:
    """The device of this name; `auto` is a GPU where there is one.

    Raises ValueError, which names the `setting`, where there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{setting}={name} is no device: cpu, cuda, cuda:1 ... or auto") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{setting}={name} is not here: this machine has {torch.cuda.device_count()} GPUs")
    try:
        torch.ones((), device=device).item()
    except (RuntimeError, AssertionError):
        raise ValueError(f"{setting}={name} cannot be used on this machine: take cpu or auto") from None
    return device
