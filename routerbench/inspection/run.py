"""`routerbench inspect`: what is not known of the runs is measured, and everything drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from routerbench.identity import group_id
from routerbench.inspection.chosen import Choice
from routerbench.inspection.figures.said import Numbers
from routerbench.inspection.figures.shown import ShownImages
from routerbench.inspection.figures.slots import Mixtures
from routerbench.inspection.gallery import Known, chapters
from routerbench.inspection.kept import keep, read_kept
from routerbench.inspection.look import look
from routerbench.inspection.numbers import numbers_of
from routerbench.inspection.page import page
from routerbench.inspection.routing_of import routing_of
from routerbench.inspection.seen import LayerSeen, Seen
from routerbench.inspection.stability import over_seeds, over_training
from routerbench.load import FinishedRun, open_run
from routerbench.moe.surgery import moe_layers
from routerbench.records import keep_evaluation, own_record, write_text

STUDY = "inspect"


@dataclass(frozen=True)
class Asked:
    """What the words of the command ask for."""

    choice: Choice = field(default_factory=Choice)
    layers: tuple[str, ...] = ()
    """Names of the MoE layers that are drawn; without any, all."""
    weights: str | None = None
    device: str = "auto"
    batch_size: int | None = None
    data_path: str | None = None
    permutations: int = 200
    seed: int = 0
    again: bool = False
    """Whether what was measured before is measured once more."""


@dataclass(frozen=True)
class Inspected:
    """A run and what was found of it."""

    run: FinishedRun
    folder: Path
    """Where its pictures are."""
    seen: Seen
    numbers: dict[str, Any]
    checkpoints: dict[int, dict[str, float]]
    """By step and layer, how many tokens leant to the expert of the trained model already."""


@dataclass(frozen=True)
class Outcome:
    """What became of one of the named folders: its numbers and page, or why there are none."""

    path: Path
    numbers: dict[str, Any] | None = None
    page: Path | None = None
    nothing: str | None = None
    """A dense run has no routers, which is no fault."""
    refusal: str | None = None


def inspect_runs(paths: Sequence[Path], asked: Asked) -> Iterator[Outcome]:
    """Look at each run, those of one configuration together; one that cannot be opened stops no other."""
    for group in _by_configuration(paths):
        inspected = []
        for path in group:
            found = _measured(path, asked)
            if isinstance(found, Outcome):
                yield found
            else:
                inspected.append(found)
        seeds = over_seeds([one.seen for one in inspected]) if len(inspected) > 1 else {}
        for one in inspected:
            yield _drawn(one, seeds, len(inspected), asked)


def _by_configuration(paths: Sequence[Path]) -> list[list[Path]]:
    """The folders in their order, those that differ by their seed alone beside each other."""
    groups: dict[str, list[Path]] = {}
    for path in dict.fromkeys(paths):
        groups.setdefault(_configuration(path), []).append(path)
    return list(groups.values())


def _configuration(path: Path) -> str:
    try:
        record = own_record(path)
        return str(path) if record is None else group_id(record["config"])
    except (ValueError, OSError, KeyError, TypeError):  # what is wrong with it is said when it is opened
        return str(path)


def _measured(path: Path, asked: Asked) -> Inspected | Outcome:
    try:
        run = open_run(
            path,
            weights=asked.weights,
            device=asked.device,
            data_path=asked.data_path,
            batch_size=asked.batch_size,
        )
        if not moe_layers(run.model):
            return Outcome(path, nothing="a dense run has no routers: there is nothing to inspect")
        return _inspected(run, asked)
    except (ValueError, OSError) as error:
        return Outcome(path, refusal=str(error))


def _inspected(run: FinishedRun, asked: Asked) -> Inspected:
    """What is kept of the run, and what is not there yet."""
    ranked = run.record.get("evaluation", {}).get("weights", "raw")
    other = asked.weights if asked.weights not in (None, ranked) else None
    folder = run.folder / STUDY / other if other else run.folder / STUDY
    mode = f"weights={other}" if other else "trained"
    training = str(run.record.get("provenance", {}).get("finished"))
    seen = None if asked.again else read_kept(folder, training)
    if seen is None:
        seen = look(run)
        keep(folder, seen, training)
    known = run.record.get("evaluations", {}).get(STUDY, {}).get(mode)
    if known is None or asked.again:
        known = numbers_of(seen, asked.permutations, asked.seed)
        keep_evaluation(run.folder, run.record, STUDY, mode, known)
    return Inspected(run, folder, seen, known, {} if other else over_training(run, seen))


def _drawn(one: Inspected, seeds: Numbers, num_seeds: int, asked: Asked) -> Outcome:
    try:
        layers = _layers(one.seen, asked.layers)
        known = _known(one, layers, asked.choice)
        found = chapters(replace(known, seeds=seeds, num_seeds=num_seeds))
        for drawn in (drawn for chapter in found for drawn in chapter.drawn):
            drawn.save(one.folder)
        path = one.folder / "index.html"
        write_text(path, page(one.run.record, layers, one.numbers, found))
    except (ValueError, OSError) as error:
        return Outcome(one.run.folder, refusal=str(error))
    return Outcome(one.run.folder, one.numbers, path)


def _layers(seen: Seen, names: Sequence[str]) -> list[LayerSeen]:
    by_name = {layer.name: layer for layer in seen.layers}
    for name in names:
        if name not in by_name:
            raise ValueError(f"--layers={name} is not one of: {', '.join(by_name)}")
    return [layer for layer in seen.layers if not names or layer.name in names]


def _known(one: Inspected, layers: list[LayerSeen], choice: Choice) -> Known:
    places = choice.places(one.seen)
    images = _images(one.run, one.seen, places)
    return Known(
        folder=one.run.folder,
        seen=one.seen,
        layers=layers,
        numbers=one.numbers,
        shown=ShownImages(places, _pixels(one.run, images)),
        mixtures=_mixtures(one.run, images, [layer.name for layer in layers]),
        checkpoints=one.checkpoints,
    )


def _images(run: FinishedRun, seen: Seen, places: Int64[np.ndarray, "n"]) -> Float[np.ndarray, "n C H W"]:
    batches = list(run.batches(places))
    labels = np.concatenate([labels.numpy() for _, labels in batches])
    if not np.array_equal(labels, seen.labels[places]):
        raise ValueError(
            f"path={run.folder} was inspected on other images than its data set has now: say --again"
        )
    return np.concatenate([images.numpy() for images, _ in batches])


def _pixels(run: FinishedRun, images: Float[np.ndarray, "n C H W"]) -> Float[np.ndarray, "n H W 3"]:
    mean, std = (np.array(run.config.data[name])[:, None, None] for name in ("mean", "std"))
    return np.clip(images * std + mean, 0, 1).transpose(0, 2, 3, 1)


def _mixtures(
    run: FinishedRun, images: Float[np.ndarray, "n C H W"], layers: Sequence[str]
) -> list[Mixtures]:
    """What soft routers make of these images; of other routers nothing."""
    routing = {name: one for name, one in routing_of(run.model, images).items() if name in layers}
    return [
        Mixtures(name, one.grid, one.num_prefix, one.dispatch, one.combine)
        for name, one in routing.items()
        if one.dispatch is not None and one.combine is not None and one.grid[0] > 1
    ]
