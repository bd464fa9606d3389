"""`routerbench inspect`: what is not known of the runs is measured, and everything drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from routerbench.data.pixels import as_pictures
from routerbench.inspection.asked import Asked
from routerbench.inspection.chosen import Choice
from routerbench.inspection.figures.said import Numbers
from routerbench.inspection.figures.shown import ShownImages
from routerbench.inspection.figures.slots import Mixtures
from routerbench.inspection.measured import STUDY, Inspected, measured
from routerbench.inspection.measures.stability import over_seeds
from routerbench.inspection.page import page
from routerbench.inspection.page.chapters import Known, chapters
from routerbench.inspection.routing_of import routing_of
from routerbench.inspection.seeing.seen import LayerSeen, Seen
from routerbench.load import FinishedRun, open_run
from routerbench.moe.surgery import moe_layers
from routerbench.records import keep_evaluation, write_text
from routerbench.run_files import by_configuration


@dataclass(frozen=True)
class Outcome:
    """What became of one of the named folders: its numbers and page, or why there are none."""

    path: Path
    numbers: dict[str, Any] | None = None
    page: Path | None = None
    nothing: str | None = None
    """A dense run has no routers, which is no fault."""
    refusal: str | None = None
    over_seeds: dict[str, Any] | None = None
    """How alike it is to the other seeds that were named, in the words of `stability.over_seeds`."""

    @property
    def seeds(self) -> str:
        """The agreement over seeds in words, the mean over layers; empty where one seed was named."""
        numbers = self.over_seeds or {}
        return (
            f"experts agree over seeds on {numbers['agreement']:.2f} of patches, by chance "
            f"{numbers['agreement_null']:.2f}"
            if numbers
            else ""
        )


def inspect_runs(paths: Sequence[Path], asked: Asked) -> Iterator[Outcome]:
    """Look at each run, those of one configuration together; one that cannot be opened stops no other."""
    for group in by_configuration(paths):
        inspected = []
        for path in group:
            found = _opened(path, asked)
            if isinstance(found, Outcome):
                yield found
            else:
                inspected.append(found)
        seeds = over_seeds([one.seen for one in inspected]) if len(inspected) > 1 else {}
        for one in inspected:
            yield _drawn(one, seeds, inspected, asked)


def _opened(path: Path, asked: Asked) -> Inspected | Outcome:
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
        _check(run, asked)
        return measured(run, asked)
    except (ValueError, OSError) as error:
        return Outcome(path, refusal=str(error))


def _check(run: FinishedRun, asked: Asked) -> None:
    """Raise ValueError for a layer, an image or a class that the run has not, before anything is measured."""
    names = list(moe_layers(run.model))
    for name in asked.layers:
        if name not in names:
            raise ValueError(f"--layers={name} is not one of: {', '.join(names)}")
    asked.choice.check(run.test.labels, run.test.class_names)


def _drawn(one: Inspected, seeds: Numbers, all_seeds: Sequence[Inspected], asked: Asked) -> Outcome:
    try:
        if seeds:
            _keep_seeds(one, all_seeds, seeds)
        layers = _layers(one.seen, asked.layers)
        known = _known(one, layers, asked.choice)
        found = chapters(replace(known, seeds=seeds, num_seeds=len(all_seeds)))
        for drawn in (drawn for chapter in found for drawn in chapter.drawn):
            drawn.save(one.folder, asked.formats)
        path = one.folder / "index.html"
        write_text(path, page(one.run.record, layers, one.numbers, found, asked.formats))
    except (ValueError, OSError) as error:
        return Outcome(one.run.folder, refusal=str(error))
    return Outcome(one.run.folder, one.numbers, path, over_seeds=dict(seeds) or None)


def _keep_seeds(one: Inspected, all_seeds: Sequence[Inspected], numbers: Numbers) -> None:
    """Put the stability over these seeds into the record, under their names."""
    named = ",".join(str(seed) for seed in sorted(other.run.config.seed for other in all_seeds))
    runs = {other.run.run_id: str(other.run.record["provenance"].get("finished")) for other in all_seeds}
    keep_evaluation(
        one.run.folder, one.run.record, STUDY, f"seeds={named}", {**numbers, "origin": {"runs": runs}}
    )


def _layers(seen: Seen, names: Sequence[str]) -> list[LayerSeen]:
    return [layer for layer in seen.layers if not names or layer.name in names]


def _known(one: Inspected, layers: list[LayerSeen], choice: Choice) -> Known:
    places = choice.places(one.seen)
    images, data = _images(one.run, one.seen, places), one.run.config.data
    return Known(
        folder=one.run.folder,
        seen=one.seen,
        layers=layers,
        numbers=one.numbers,
        shown=ShownImages(places, as_pictures(images, data.mean, data.std)),
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
