"""From a configuration to what its probes are made on: the few-shot and the linear one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from routerbench.data.loaders import Batch, Loader, test_loader
from routerbench.data.orders import ALONE
from routerbench.data.sources import Dataset, Source, labels_of, select
from routerbench.fewshot import Probe
from routerbench.linear_probe import LinearProbe
from routerbench.parts.data import Data, made, of_batches, training_and_held_out


@dataclass(frozen=True)
class FewShot:
    """What the few-shot evaluation of a run is made on."""

    probe: Probe
    labels: NDArray[np.int64]
    """Of the images from which the support is drawn."""
    load: Callable[[NDArray[np.int64]], Iterator[Batch]]
    """From places among these to batches of their images, as in an evaluation."""
    test: Loader


@dataclass(frozen=True)
class Probed:
    """What the linear probe of a run is made on."""

    probe: LinearProbe
    train: Loader
    """The images that it is fitted to, as in an evaluation."""
    test: Loader


def load_fewshot(config: DictConfig, data: Data | None = None) -> FewShot | None:
    """The few-shot evaluation, None where it is not asked for; raises ValueError where it cannot be made.

    `data` is that of the run, where it has been read already.
    """
    if "fewshot" not in config.eval:
        return None
    probe: Probe = _settings(config, "fewshot", Probe)
    described, pool, test = probe_sets(config, "fewshot", data)
    common, labels = of_batches(described, ALONE), labels_of(pool)
    probe.draws(labels)  # refuses classes that are too small
    return FewShot(
        probe,
        labels,
        lambda places: test_loader(select(pool, torch.from_numpy(places)), **common).epoch(0),
        test_loader(test, **common),
    )


def load_linear_probe(config: DictConfig, data: Data | None = None) -> Probed | None:
    """The linear probe, None where it is not asked for; raises ValueError where it cannot be made.

    `data` is that of the run, where it has been read already.
    """
    if "linear_probe" not in config.eval:
        return None
    probe: LinearProbe = _settings(config, "linear_probe", LinearProbe)
    described, pool, test = probe_sets(config, "linear_probe", data)
    common = of_batches(described, ALONE)
    probe.split(len(pool))  # refuses a pool that is too small
    return Probed(probe, test_loader(pool, **common), test_loader(test, **common))


def _settings(config: DictConfig, name: str, probe: Callable[..., Any]) -> Any:
    settings: Any = OmegaConf.to_container(config.eval[name], resolve=True)
    settings.pop("data", None)
    try:
        return probe(**settings)
    except TypeError as error:
        raise ValueError(f"eval.{name} cannot be built: {error}") from error


def probe_sets(
    config: DictConfig, name: str, data: Data | None = None
) -> tuple[DictConfig, Dataset, Dataset]:
    """How the data of a probe are described, the images that it learns from, and those it is tested on.

    Raises ValueError for what is missing or does not fit.
    """
    described, own = config.copy(), config.eval[name].get("data")
    if own is not None:
        described.data = own
    if described.data.get("on_corrupt") == "skip":
        raise ValueError(
            f"data.on_corrupt=skip leaves images out, and eval.{name} draws its own beforehand: say error"
        )
    if described.data.image_size != config.data.image_size:
        raise ValueError(
            f"eval.{name}.data.image_size={described.data.image_size} is not that of the model: give "
            f"{config.data.image_size}"
        )
    if own is None and data is not None:
        return described, data.train.dataset, data.test.dataset
    source: Source = made("data.source" if own is None else f"eval.{name}.data.source", described.data.source)
    return described, training_and_held_out(source.train, described.data)[0], source.test
