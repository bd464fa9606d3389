"""The linear probe: multinomial logistic regression on a model's frozen features (Kornblith et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from routerbench.checks import check_not_negative, check_positive
from routerbench.fewshot import STD_OFFSET, Batches, features

MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class LinearProbe:
    """How the probe is fitted; raises ValueError for a setting that is out of range.

    The weight of the penalty among `l2` is the one that is best on `held_out` of the images to learn from,
    which `seed` draws; the probe is then fitted to all of them.
    """

    l2: Sequence[float]
    held_out: float
    seed: int

    def __post_init__(self) -> None:
        if not self.l2:
            raise ValueError("eval.linear_probe.l2=[] is empty: give at least one")
        for value in self.l2:
            check_positive("eval.linear_probe.l2", value)
        check_positive("eval.linear_probe.held_out", self.held_out)
        if self.held_out >= 1:
            raise ValueError(f"eval.linear_probe.held_out={self.held_out} must be a number below 1")
        check_not_negative("eval.linear_probe.seed", self.seed)

    def split(self, num_images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the images to fit to and of those held out; raises ValueError where either has none."""
        num_held_out = round(self.held_out * num_images)
        if not 0 < num_held_out < num_images:
            raise ValueError(
                f"eval.linear_probe.held_out={self.held_out} leaves {num_held_out} of {num_images} images to "
                "choose l2 on: give more images, or another part"
            )
        order = np.random.default_rng(self.seed).permutation(num_images)
        return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])


def linear_probe(
    model: nn.Module,
    probe: LinearProbe,
    train: Batches,
    test: Batches,
    device: torch.device,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Accuracy of the probe on the test images as `linear_probe/top1`, with its 95 % interval over images.

    That is Wilson's, `linear_probe/top1_low` and `_high`; `linear_probe/l2` is the penalty that was chosen.
    """
    x, y = features(model, train, device, autocast)
    x_test, y_test = features(model, test, device, autocast)
    return probe_features(probe, *(values.to(_fits_on(device)) for values in (x, y, x_test, y_test)))


def probe_features(
    probe: LinearProbe,
    x: Float[Tensor, "N D"],
    y: Int64[Tensor, "N"],
    x_test: Float[Tensor, "M D"],
    y_test: Int64[Tensor, "M"],
) -> dict[str, float]:
    """The metrics of `linear_probe` from features, which are standardised by those to learn from.

    Raises ValueError for features that are no finite numbers.
    """
    # With scipy's statistics, which training is without.
    from routerbench.stats import CONFIDENCE, proportion_interval

    if not (x.isfinite().all() and x_test.isfinite().all()):
        raise ValueError("eval.linear_probe has features that are no finite numbers: the model has diverged")
    mean, std = x.double().mean(0), x.double().std(0, correction=0) + STD_OFFSET
    x, x_test = ((values.double() - mean) / std for values in (x, x_test))
    num_classes = 1 + int(max(y.max(), y_test.max()))
    l2 = _best_l2(probe, x, y, num_classes)
    weights = fit(x, y, l2, np.zeros((x.shape[1] + 1, num_classes)))
    right = _right(x_test, y_test, weights)
    low, high = proportion_interval(right, len(y_test), CONFIDENCE)
    found = {"top1": right / len(y_test), "top1_low": low, "top1_high": high, "l2": l2}
    return {f"linear_probe/{name}": float(value) for name, value in found.items()}


def fit(
    x: Float64[Tensor, "N D"], y: Int64[Tensor, "N"], l2: float, start: Float64[np.ndarray, "F C"]
) -> Float64[np.ndarray, "F C"]:
    """Weights (D + 1, C), the last row the bias, of least mean cross-entropy and `l2`/2 times their squares.

    The bias has no penalty. By L-BFGS from `start`, in float64, on the device of the features.
    """
    from scipy.optimize import minimize

    targets = F.one_hot(y, start.shape[1]).to(x)

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = torch.from_numpy(flat).view(start.shape).to(x)
        log_shares = (x @ weights[:-1] + weights[-1]).log_softmax(1)
        loss = -(targets * log_shares).sum() / len(x) + l2 / 2 * weights[:-1].square().sum()
        slope = (log_shares.exp() - targets) / len(x)
        gradient = torch.cat([x.T @ slope + l2 * weights[:-1], slope.sum(0, keepdim=True)])
        return float(loss), gradient.flatten().cpu().numpy()

    found = minimize(
        loss_and_gradient, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS}
    )
    return found.x.reshape(start.shape)


def _best_l2(probe: LinearProbe, x: Float64[Tensor, "N D"], y: Int64[Tensor, "N"], num_classes: int) -> float:
    """The penalty that is best on the images held out; of equal ones the largest."""
    kept, held = (torch.from_numpy(places).to(x.device) for places in probe.split(len(x)))
    weights, rights = np.zeros((x.shape[1] + 1, num_classes)), {}
    for l2 in sorted(probe.l2, reverse=True):  # each fit starts where the one before ended
        weights = fit(x[kept], y[kept], l2, weights)
        rights[l2] = _right(x[held], y[held], weights)
    return max(rights, key=lambda l2: rights[l2])


def _right(x: Float64[Tensor, "N D"], y: Int64[Tensor, "N"], weights: Float64[np.ndarray, "F C"]) -> int:
    own = torch.from_numpy(weights).to(x)
    return int(((x @ own[:-1] + own[-1]).argmax(1) == y).sum())


def _fits_on(device: torch.device) -> torch.device:
    """The device where it knows float64, else the CPU."""
    return device if device.type == "cuda" else torch.device("cpu")
