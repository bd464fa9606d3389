"""What a capacity sweep leaves beside the record: its pictures, and their numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from routerbench.evaluations.capacity.calibration import Bins, equal_width
from routerbench.evaluations.capacity.grid import STUDY
from routerbench.evaluations.capacity.twin import dense_twin
from routerbench.evaluations.figures.capacity import capacity_picture
from routerbench.evaluations.figures.reliability import reliability_picture
from routerbench.evaluations.measurement import Result, entry_name, kept_results
from routerbench.evaluations.seeing.observed import FOLDER, kept_images
from routerbench.figures.saved import save
from routerbench.load import FinishedRun
from routerbench.modes import is_name

BIN_COLUMNS = ("mode", "above", "up_to", "images", "confidence", "accuracy")
TWIN_METRICS = ("top1", "top5", "balanced", "loss")


def draw(run: FinishedRun) -> None:
    """Draw all modes that the record holds of the run's weights; raises UnwritableError."""
    results = kept_results(run, STUDY)
    twin = dense_twin(run)
    if len(results) > 1 or twin is not None:
        picture = capacity_picture(results, twin)
        save(run.folder / FOLDER, _name(run, "capacity"), picture, *_table(results, twin))
    num_images = len(run.test.labels)
    names = {mode: _name(run, mode) for mode in results if is_name(mode)}
    kept = {mode: kept_images(run.folder, name, num_images) for mode, name in names.items()}
    bins_of = {mode: equal_width(images[1], images[0]) for mode, images in kept.items() if images is not None}
    shown = {mode: bins_of[mode] for mode in _telling(results) if mode in bins_of}
    if shown:
        rows = [row for mode, bins in bins_of.items() for row in _rows(mode, bins)]
        save(run.folder / FOLDER, _name(run, "reliability"), reliability_picture(shown), BIN_COLUMNS, rows)


def _name(run: FinishedRun, name: str) -> str:
    return entry_name(run, name).replace(" ", "_")


def _table(
    results: Mapping[str, Result], twin: Mapping[str, Any] | None
) -> tuple[Sequence[str], list[list[object]]]:
    columns = [name for name in next(iter(results.values())) if name != "origin"]
    rows: list[list[object]] = [[mode, *map(result.get, columns)] for mode, result in results.items()]
    if twin is not None:
        told: dict[str, Any] = {name: twin["metrics"].get(f"test/{name}") for name in TWIN_METRICS}
        told["executed_flops_per_image"] = twin["cost"]["flops_per_image_eval"]
        rows.append(["dense twin", *map(told.get, columns)])
    return ["mode", *columns], rows


def _telling(results: Mapping[str, Result]) -> list[str]:
    """The run as it was trained, without drops, and with the fewest FLOPs."""
    dropless = [mode for mode, result in results.items() if result["dropless"]]
    fewest = min(results, key=lambda mode: results[mode]["executed_flops_per_image"])
    return list(dict.fromkeys(["trained", *dropless[:1], fewest]))


def _rows(mode: str, bins: Bins) -> Iterator[list[object]]:
    number = len(bins.count)
    for place, means in enumerate(zip(bins.count, bins.confidence, bins.accuracy, strict=True)):
        yield [mode, place / number, (place + 1) / number, *means]
