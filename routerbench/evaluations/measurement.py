"""What `routerbench eval` asks of a run: measurements, each with its place in the record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from routerbench.load import FinishedRun
from routerbench.records import own_record, ranked_weights

METHOD = 2  # of all measurements; one that the record has of another method is taken again

Result = dict[str, Any]
"""Numbers by name, as JSON."""


@dataclass(frozen=True)
class Measurement:
    """One entry of a study in a record, which is taken unless it stands there on the same basis."""

    mode: str
    """As the settings would be typed that differ from the run's own."""
    take: Callable[[], Result]
    rests_on: Mapping[str, Any] = field(default_factory=dict)
    """What the numbers hang on beside the mode, the run and its test images, as JSON."""


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
    settings: DictConfig = field(default_factory=lambda: OmegaConf.create({}))
    """What `eval` is in a configuration: further image sets, and probes."""


def entry_name(run: FinishedRun, mode: str) -> str:
    """The place of a mode in the record; weights that the record does not rank have places of their own."""
    return mode if run.weights == ranked_weights(run.record) else f"weights={run.weights} {mode}"


def basis_of(run: FinishedRun) -> dict[str, Any]:
    """What every number of this run rests on: how it is measured, and on which images."""
    return {"method": METHOD, "data": run.test.fingerprint}


def rests_on(entry: Result, basis: Mapping[str, Any]) -> bool:
    """Whether an entry of the record was measured on this basis, by its `origin`."""
    origin = entry.get("origin")
    return isinstance(origin, dict) and all(origin.get(name) == value for name, value in basis.items())


def kept_results(run: FinishedRun, study: str) -> dict[str, Result]:
    """What the record holds, by mode, of a study of the weights of this run on its images as they are now."""
    basis = basis_of(run)
    kept = {name: entry for name, entry in entries_of(run, study).items() if rests_on(entry, basis)}
    of_weights = entry_name(run, "")
    names = {name: name.removeprefix(of_weights) for name in kept if name.startswith(of_weights)}
    return {mode: kept[name] for name, mode in names.items() if not mode.startswith("weights=")}


def entries_of(run: FinishedRun, study: str) -> dict[str, Result]:
    """What the record holds now of a study, by the names of entries; raises ValueError for a damaged one."""
    kept = (own_record(run.folder) or {}).get("evaluations", {}).get(study, {})
    if not isinstance(kept, dict) or not all(isinstance(entry, dict) for entry in kept.values()):
        raise ValueError(
            f"path={run.folder} has a record.json whose evaluations are not results by study and mode: take "
            "them out of it, and they are measured again"
        )
    return kept
