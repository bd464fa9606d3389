"""Batch sensitivity: how far predictions depend on the images that are routed together."""

import math
from collections.abc import Iterator
from functools import cache, partial

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from scipy.special import stdtrit

from routerbench.checks import check_count
from routerbench.evaluations.batches.held import check_all_there, with_images_held
from routerbench.evaluations.figures.batches import COLUMNS, sensitivity_picture, sensitivity_rows
from routerbench.evaluations.measurement import Asked, Measurement, Result, entry_name, kept_results
from routerbench.evaluations.seeing.observation import observe
from routerbench.evaluations.seeing.observed import FOLDER
from routerbench.figures.saved import save
from routerbench.load import FinishedRun
from routerbench.modes import Mode, changeable, evaluated_in
from routerbench.moe.surgery import images_routed_together, moe_layers
from routerbench.stats import CONFIDENCE

STUDY = "batches"

Predictions = Int64[np.ndarray, "R N"]


def measurements(run: FinishedRun, asked: Asked) -> Iterator[Measurement]:
    """One for each group: those asked for, or the run's own and `image`; at the end the picture of all.

    A dense model has no groups, and no measurement. Raises ValueError for fewer than two groupings, and for a
    group that the model cannot have.
    """
    check_count("--groupings", asked.num_groupings)
    if asked.num_groupings < 2:
        raise ValueError("--groupings=1 leaves nothing to compare: give at least 2")
    if not moe_layers(run.model):
        return
    held = cache(partial(with_images_held, run))  # by the first that is measured
    for group, mode in _modes(run, asked).items():
        with evaluated_in(run.model, mode):  # refuses what cannot be, before anything is measured
            pass
        name = " ".join([f"group={group}", *_beyond_usual(asked)])
        yield Measurement(name, lambda mode=mode: sensitivity(held(), mode, asked))
    _draw(run)


def _draw(run: FinishedRun) -> None:
    """Draw all that the record holds; raises UnwritableError."""
    if results := kept_results(run, STUDY):
        picture, rows = sensitivity_picture(results), sensitivity_rows(results)
        save(run.folder / FOLDER, entry_name(run, STUDY).replace(" ", "_"), picture, COLUMNS, rows)


def own_group(run: FinishedRun) -> str | int:
    """`image`, or of how many images the groups of the run are."""
    images = images_routed_together(run.model)
    return "image" if images == 1 else images


def sensitivity(run: FinishedRun, mode: Mode, asked: Asked) -> Result:
    """What `compared` says of random groupings of all test images and of the one in the order of classes."""
    labels = run.test.labels
    rng = np.random.default_rng(asked.seed)
    orders = [rng.permutation(len(labels)) for _ in range(asked.num_groupings)]
    with evaluated_in(run.model, mode):
        shuffled = np.stack([_predictions(run, order) for order in orders])
        ordered = _predictions(run, np.argsort(labels, kind="stable"))
    return compared(shuffled, ordered, labels)


def compared(
    shuffled: Predictions, ordered: Int64[np.ndarray, "N"], labels: Int64[np.ndarray, "N"]
) -> Result:
    """Accuracies over R >= 2 random groupings and in the order of classes; how many predictions change.

    `sensitivity_points` is the larger of two: how far the accuracy in the order of classes is from the mean
    over random groupings, where that is more than one more random grouping would differ (95 %), and the
    standard deviation over these; in points. More than 0.1 is marked.
    """
    top1 = (shuffled == labels).mean(1)
    top1_ordered = float((ordered == labels).mean())
    lost, deviation = float(top1.mean()) - top1_ordered, float(top1.std(ddof=1))
    noise = deviation * _half_width_of_one_more(len(shuffled))
    return {
        "sensitivity_points": 100 * max(abs(lost) if abs(lost) > noise else 0.0, deviation),
        "top1_mean": float(top1.mean()),
        "top1_std": deviation,
        "top1_min": float(top1.min()),
        "top1_max": float(top1.max()),
        "top1_ordered": top1_ordered,
        "ordered_lost_points": 100 * lost,
        "ordered_noise_points": 100 * noise,
        "balanced_mean": float(np.mean([_balanced(row == labels, labels) for row in shuffled])),
        "balanced_ordered": _balanced(ordered == labels, labels),
        "changed_fraction": float((shuffled != shuffled[0]).any(0).mean()),
        "disagreement_fraction": _disagreement(shuffled),
        "num_groupings": len(shuffled),
        "num_images": len(labels),
        "top1_by_grouping": top1.tolist(),
    }


def _half_width_of_one_more(num_groupings: int) -> float:
    """Of the 95 % range of one more grouping about the mean of these, in their standard deviations."""
    quantile = float(stdtrit(num_groupings - 1, (1 + CONFIDENCE) / 2))
    return quantile * math.sqrt(1 + 1 / num_groupings)


def _disagreement(predictions: Predictions) -> float:
    """The share of images on which two groupings differ, the mean over all pairs of them."""
    num_groupings = len(predictions)
    differing = [(predictions[i] != predictions[i + 1 :]).sum() for i in range(num_groupings - 1)]
    num_pairs = num_groupings * (num_groupings - 1) // 2
    return float(sum(differing) / (num_pairs * predictions.shape[1]))


def _balanced(correct: Bool[np.ndarray, "N"], labels: Int64[np.ndarray, "N"]) -> float:
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def _predictions(run: FinishedRun, order: NDArray[np.int64]) -> Int64[np.ndarray, "N"]:
    """The predicted class of every test image, by its place, when the images come in this order."""
    seen = observe(run, run.batches(order))
    check_all_there(len(seen.labels), len(order))
    predicted = np.empty_like(order)
    predicted[order] = seen.predicted
    return predicted


def _modes(run: FinishedRun, asked: Asked) -> dict[str | int, Mode]:
    own = own_group(run)
    remedy = ("image",) if "group" in changeable(run.model) else ()
    groups = asked.groups or (own, *remedy)
    # Of a router that routes each image alone even the group that it has cannot be set.
    return {group: Mode() if group == own else Mode(group=group) for group in groups}


def _beyond_usual(asked: Asked) -> list[str]:
    """What was asked for otherwise than by default and changes the numbers, as it would be typed."""
    usual = Asked()
    given = {"groupings": (asked.num_groupings, usual.num_groupings), "seed": (asked.seed, usual.seed)}
    return [f"{name}={value}" for name, (value, default) in given.items() if value != default]
