"""What `routerbench eval` asks of a run: measurements, each with its place in the record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from routerbench.load import FinishedRun

Result = dict[str, Any]
"""Numbers by name, as JSON."""


@dataclass(frozen=True)
class Measurement:
    """One entry of a record's `evaluations.<study>.<mode>`; what stands there is not taken again."""

    study: str
    mode: str
    """As the settings would be typed that differ from the run's own."""
    take: Callable[[], Result]


@dataclass(frozen=True)
class Asked:
    """What the words of the command ask for; a tuple without values leaves a choice to the study."""

    capacity_factors: tuple[float | str, ...] = ()
    """Numbers, or `dropless`."""
    top_ks: tuple[int, ...] = ()
    priorities: tuple[bool, ...] = ()
    groups: tuple[str | int, ...] = ()
    """`image`, or numbers of images, of which the effect of batch-mates is measured."""
    num_groupings: int = 10
    replacements: tuple[str, ...] = ()
    """Names of `evaluations.routers`."""
    seed: int = 0
    """Of every random choice."""
    others: tuple[FinishedRun, ...] = ()
    """The other runs that were named, for what takes two."""
    settings: DictConfig | None = None
    """What else the models are asked about: an `eval` node, as for training."""
