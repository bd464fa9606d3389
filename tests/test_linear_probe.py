"""The linear probe: its fit against its own definition, what it finds, and what it refuses."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from routerbench import parts
from routerbench.compose import compose_sweep
from routerbench.linear_probe import LinearProbe, fit, linear_probe, probe_features

PROBE = LinearProbe(l2=[1e-4, 1e-2, 1.0], held_out=0.25, seed=0)


def blobs(num_images: int, distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(num_images) % 3
    return torch.randn(num_images, 5) + distance * torch.eye(5)[labels], labels


def test_the_fit_is_where_the_slope_is_zero() -> None:
    x, y = blobs(60, 1.0)
    x, l2 = x.double(), 0.05
    weights = torch.from_numpy(fit(x, y, l2, np.zeros((6, 3)))).requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weights[:-1] + weights[-1], y)
    (loss + l2 / 2 * weights[:-1].square().sum()).backward()
    assert weights.grad is not None
    assert weights.grad.abs().max() < 1e-4
    # From where it ended it does not move.
    again = fit(x, y, l2, weights.detach().numpy())
    np.testing.assert_allclose(again, weights.detach().numpy(), atol=1e-3)


def test_what_can_be_told_apart_is() -> None:
    metrics = probe_features(PROBE, *blobs(90, 20.0), *blobs(30, 20.0))
    assert metrics["linear_probe/top1"] == 1
    assert metrics["linear_probe/top1_high"] == pytest.approx(1)
    # Wilson's lower end of n of n: n / (n + 1.96^2).
    assert metrics["linear_probe/top1_low"] == pytest.approx(30 / (30 + 1.95996**2), abs=1e-4)
    assert metrics["linear_probe/l2"] == 1.0  # of equal ones the largest


def test_noise_takes_a_large_penalty_and_units_do_not_matter() -> None:
    (x, y), (x_test, y_test) = blobs(60, 0.5), blobs(60, 0.5)
    metrics = probe_features(PROBE, x, y, x_test, y_test)
    assert metrics == pytest.approx(
        probe_features(PROBE, 1000 * x + 7, y, 1000 * x_test + 7, y_test), abs=1e-3
    )
    assert 1 / 3 - 0.1 < metrics["linear_probe/top1"] < 0.9
    x_test[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match=r"^eval\.linear_probe has features that are no finite numbers: the m"
    ):
        probe_features(PROBE, x, y, x_test, y_test)


def test_the_split_hangs_on_the_seed_alone() -> None:
    kept, held = PROBE.split(20)
    assert sorted([*kept, *held]) == list(range(20))
    assert len(held) == 5
    assert np.array_equal(PROBE.split(20)[1], held)
    assert not np.array_equal(LinearProbe([1.0], 0.25, 1).split(20)[1], held)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"l2": []}, "eval.linear_probe.l2=[] is empty: give at least one"),
        ({"l2": [0.0]}, "eval.linear_probe.l2=0.0 must be a number above 0"),
        ({"held_out": 1.0}, "eval.linear_probe.held_out=1.0 must be a number below 1"),
        ({"held_out": 0.0}, "eval.linear_probe.held_out=0.0 must be a number above 0"),
        ({"seed": -1}, "eval.linear_probe.seed=-1 must be a number of at least 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        LinearProbe(**({"l2": [1.0], "held_out": 0.5, "seed": 0} | settings))


def test_a_pool_that_is_too_small() -> None:
    with pytest.raises(
        ValueError, match=r"^eval\.linear_probe\.held_out=0\.25 leaves 0 of 1 images to choose"
    ):
        PROBE.split(1)


def test_of_a_run_before_and_after_its_training() -> None:
    (config,) = compose_sweep(
        ["data=digits", "+eval=linear_probe", "eval.linear_probe.l2=[1.0]"], None, False
    ).configs
    data = parts.load_data(config)
    probed, alone = parts.load_linear_probe(config, data), parts.load_linear_probe(config)
    assert probed is not None
    assert alone is not None
    assert (probed.train.num_images, probed.test.num_images) == (1442, 355)
    assert (alone.train.num_images, alone.test.num_images) == (1442, 355)
    model, _ = parts.start(config, data.num_classes, None)
    device, exact = torch.device("cpu"), torch.autocast("cpu", enabled=False)
    metrics = linear_probe(model, probed.probe, probed.train.epoch(0), probed.test.epoch(0), device, exact)
    assert 0.3 < metrics["linear_probe/top1"] < 1
    assert parts.load_linear_probe(compose_sweep([], None, False).configs[0], data) is None
    OmegaConf.set_struct(config, False)
    config.eval.linear_probe.rounds = 3
    with pytest.raises(ValueError, match=r"^eval\.linear_probe cannot be built: .*rounds"):
        parts.load_linear_probe(config, data)


def test_its_images_are_those_of_the_run_or_its_own() -> None:
    words = ["data=digits", "+eval=linear_probe"]
    (config,) = compose_sweep(words, None, False).configs
    (other,) = compose_sweep([*words, "+data@eval.linear_probe.data=digits"], None, False).configs
    data = parts.load_data(config)
    _, pool, test = parts.probe_sets(config, "linear_probe", data)
    assert (pool, test) == (data.train.dataset, data.test.dataset)
    _, own_pool, own_test = parts.probe_sets(other, "linear_probe", data)
    assert own_pool is not pool
    assert own_test is not test
