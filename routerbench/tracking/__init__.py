"""The mirror in W&B: nothing depends on it, and no error of it ends a run."""

from routerbench.tracking.live import Mirror, mirror

__all__ = ["Mirror", "mirror"]
