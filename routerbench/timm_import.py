"""timm as a command needs it."""

import sys


def import_timm() -> None:
    """Import timm without W&B, a quarter of a second that it takes for summaries which nobody writes here."""
    if {"timm", "wandb"} & sys.modules.keys():
        return
    sys.modules["wandb"] = None  # pyright: ignore[reportArgumentType]  # Python's sign of a module that is not there
    try:
        import timm  # noqa: F401
    finally:
        del sys.modules["wandb"]
