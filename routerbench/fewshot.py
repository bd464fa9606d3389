"""The few-shot probe of V-MoE: how far a linear classifier gets on a model's features."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.checks import check_count, check_not_negative, check_one_of, check_positive
from routerbench.evaluate import weights_cast_once
from routerbench.moe.surgery import blank_images

STD_OFFSET = 1e-5
CONSTANT_FEATURE = 100.0  # stands for the bias, and is so large that the penalty hardly holds it
SELECTIONS = ("held_out", "published")

Values = NDArray[Any] | Tensor
Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Probe:
    """What is asked of the features; raises ValueError for a setting that is out of range.

    For each of `shots` the lambda among `l2` that is best in the mean over draws is taken: `held_out` by the
    drawn images that a fit has not seen, `published` by the test set, as V-MoE does.
    """

    shots: Sequence[int]
    l2: Sequence[float]
    num_draws: int
    seed: int
    select: str

    def __post_init__(self) -> None:
        for name, values, check in (("shots", self.shots, check_count), ("l2", self.l2, check_positive)):
            if not values:
                raise ValueError(f"eval.fewshot.{name}=[] is empty: give at least one")
            for value in values:
                check(f"eval.fewshot.{name}", value)
        check_count("eval.fewshot.num_draws", self.num_draws)
        check_not_negative("eval.fewshot.seed", self.seed)
        check_one_of("eval.fewshot.select", self.select, SELECTIONS)
        if self.select == "held_out" and self.num_draws == 1:
            raise ValueError(
                "eval.fewshot.num_draws=1 leaves no other draw to choose lambda on: give at least 2, or "
                "eval.fewshot.select=published"
            )

    def draws(self, labels: Int64[np.ndarray, "N"]) -> list[Int64[np.ndarray, "C K"]]:
        """The images of each draw, for the largest of `shots`; the first k of a row are those of k shots.

        Raises ValueError for a class with fewer images than shots, or in which all draws are the same.
        """
        most = max(self.shots)
        for label, count in enumerate(np.bincount(labels)):
            if count < most:
                raise ValueError(
                    f"eval.fewshot.shots={list(self.shots)} needs {most} images of every class, and class "
                    f"{label} has {count}: give at most that"
                )
        draws = [draw(labels, most, np.random.default_rng([self.seed, d])) for d in range(self.num_draws)]
        if self.select == "held_out" and len(np.unique(draws)) == draws[0].size:
            raise ValueError(
                f"eval.fewshot.shots={list(self.shots)} takes every image, and leaves none to choose lambda "
                "on: give fewer, or eval.fewshot.select=published"
            )
        return draws


def draw(labels: Int64[np.ndarray, "N"], shots: int, rng: np.random.Generator) -> Int64[np.ndarray, "C K"]:
    """Places of `shots` images of each class, the first of a permutation of it, as V-MoE draws them."""
    return np.stack([rng.permutation(np.flatnonzero(labels == c))[:shots] for c in range(labels.max() + 1)])


def ridge_accuracies(
    x_train: Values, y_train: Values, x_test: Values, y_test: Values, l2: float | Sequence[float] | Values
) -> Float64[np.ndarray, "L"]:
    """Accuracy on the test features `(M, D)` of ridge regression on the support `(N, D)`, for each lambda.

    Features are standardised by the support, with a constant feature for the bias; targets are -1 and 1, the
    largest output is the prediction (V-MoE, evaluate/fewshot.py). `l2` is one number or several. All is done
    in float64, with one decomposition for all lambdas. Raises ValueError for inputs that do not fit.
    """
    x_train, x_test = _features("x_train", x_train), _features("x_test", x_test)
    y_train, y_test = _labels("y_train", y_train, len(x_train)), _labels("y_test", y_test, len(x_test))
    if x_train.shape[1] != x_test.shape[1]:
        raise ValueError(
            f"x_test has {x_test.shape[1]} features, and x_train {x_train.shape[1]}: give the same model's"
        )
    lambdas = np.atleast_1d(_array(l2).astype(np.float64))
    for value in lambdas.tolist():
        check_positive("l2", value)
    mean, std = x_train.mean(0), x_train.std(0) + STD_OFFSET
    support, queries = (_with_constant((x - mean) / std) for x in (x_train, x_test))
    targets = 2 * np.eye(max(y_train.max(), y_test.max()) + 1)[y_train] - 1
    # With support = U diag(s) V, the weights are V' diag(s / (s^2 + lambda)) U' targets.
    u, s, v = scipy.linalg.svd(support, full_matrices=False)
    queries, targets = queries @ v.T, u.T @ targets
    outputs = (queries @ ((s / (s**2 + value))[:, None] * targets) for value in lambdas)
    return np.array([(output.argmax(1) == y_test).mean() for output in outputs])


@torch.no_grad()
def features(
    model: nn.Module, batches: Batches, device: torch.device, autocast: torch.autocast
) -> tuple[Float[Tensor, "N D"], Int64[Tensor, "N"]]:
    """What the model's classifier would see of every image, on the CPU, and the labels."""
    training = model.training
    model.eval()
    seen, labels = [], []
    with weights_cast_once(device):
        for images, label in batches:
            with autocast:
                seen.append(_before_head(model, images.to(device, non_blocking=True)).float().cpu())
            labels.append(label)
    model.train(training)
    return torch.cat(seen), torch.cat(labels)


def check_features(model: nn.Module, name: str, image_size: int, probe: str = "fewshot") -> None:
    """Raise ValueError, naming the probe, for a model that does not give what its classifier sees."""
    try:
        _before_head(model, blank_images(model, (image_size, image_size), 1))
    except (AttributeError, TypeError):
        raise ValueError(
            f"eval.{probe} is not for model.name={name}, which has no features before its head: leave it out"
        ) from None


def fewshot(
    model: nn.Module,
    probe: Probe,
    labels: Int64[np.ndarray, "N"],
    load: Callable[[Int64[np.ndarray, "I"]], Batches],
    test: Batches,
    device: torch.device,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Accuracy of the probe on the test set by `fewshot/<shots>`, the mean over draws.

    `labels` are those of the pool from which the support is drawn; `load` gives its images at some places.
    Beside it stand `fewshot/<shots>_l2`, the lambda that was chosen, and, of several draws,
    `fewshot/<shots>_std`, their standard deviation.
    """
    draws = np.stack(probe.draws(labels))
    drawn = np.unique(draws)
    x, _ = features(model, load(drawn), device, autocast)
    x_test, y_test = features(model, test, device, autocast)
    rows = np.searchsorted(drawn, draws)
    return probe_features(probe, rows, x.numpy(), labels[drawn], x_test.numpy(), y_test.numpy())


def probe_features(
    probe: Probe,
    draws: Int64[np.ndarray, "R C K"],
    x: Float[np.ndarray, "N D"],
    y: Int64[np.ndarray, "N"],
    x_test: Float[np.ndarray, "M D"],
    y_test: Int64[np.ndarray, "M"],
) -> dict[str, float]:
    """The metrics of `fewshot` from the features of all drawn images, of which `draws` gives the rows."""
    metrics: dict[str, float] = {}
    for shots in probe.shots:
        supports = [rows[:, :shots].ravel() for rows in draws]
        if probe.select == "published":
            judges = [(x_test, y_test)] * len(supports)
        else:
            unseen = [np.setdiff1d(np.arange(len(x)), rows) for rows in supports]
            judges = [(x[rows], y[rows]) for rows in unseen]
        l2 = _best_lambda(
            probe.l2,
            [
                ridge_accuracies(x[rows], y[rows], *judge, probe.l2)
                for rows, judge in zip(supports, judges, strict=True)
            ],
        )
        accuracies = [ridge_accuracies(x[rows], y[rows], x_test, y_test, l2).item() for rows in supports]
        metrics |= {f"fewshot/{shots}": float(np.mean(accuracies)), f"fewshot/{shots}_l2": float(l2)}
        if len(accuracies) > 1:
            metrics[f"fewshot/{shots}_std"] = float(np.std(accuracies, ddof=1))
    return metrics


def _before_head(model: nn.Module, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
    timm_model: Any = model
    return timm_model.forward_head(timm_model.forward_features(images), pre_logits=True).flatten(1)


def _best_lambda(lambdas: Sequence[float], accuracies: Sequence[Float64[np.ndarray, "L"]]) -> float:
    """The lambda of the highest mean accuracy; of equal ones the largest, as by V-MoE's ranks."""
    return max(zip(np.mean(accuracies, axis=0).tolist(), lambdas, strict=True))[1]


def _with_constant(x: Float64[np.ndarray, "N D"]) -> Float64[np.ndarray, "N F"]:
    return np.concatenate([x, np.full((len(x), 1), CONSTANT_FEATURE)], axis=1)


def _array(values: float | Sequence[float] | Values) -> NDArray[Any]:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def _features(name: str, values: Values) -> Float64[np.ndarray, "N D"]:
    x = _array(values.double() if isinstance(values, Tensor) else values).astype(np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(
            f"{name} is of shape {x.shape}: give features (images, features) of one image or more"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has features that are no finite numbers: the model has diverged")
    return x


def _labels(name: str, values: Values, num_images: int) -> Int64[np.ndarray, "N"]:
    y = _array(values)
    if y.shape != (num_images,):
        raise ValueError(
            f"{name} is of shape {y.shape}, and there are {num_images} images: give a label for each"
        )
    if y.dtype.kind not in "iu" or y.min() < 0:
        raise ValueError(f"{name} has other values than classes: give whole numbers of at least 0")
    return y.astype(np.int64)
