"""From a configuration to its data: the batches of a run, and what else a model is evaluated on."""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig

from routerbench.checks import check_one_of
from routerbench.data.extra import ExtraImages, ExtraSet, ImageSets
from routerbench.data.fingerprint import Fingerprint, of_dataset
from routerbench.data.loaders import Batch, Decoding, Loader, test_loader, train_loader
from routerbench.data.orders import ALONE, Share
from routerbench.data.pixels import CentreCrop
from routerbench.data.sources import Dataset, Source, labels_of, select
from routerbench.data.splits import Part, chosen, places_of

# Whose nodes in `eval` describe images; others there are probes.
OF_IMAGES = ("routerbench.data.extra.", "routerbench.data.corruptions.")


@dataclass(frozen=True)
class Data:
    """The batches of a run."""

    train: Loader
    test: Loader
    minival: Loader | None
    """What is held out of the training set, as in an evaluation."""
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many classes a model is to tell apart."""
        return len(self.class_names)

    @property
    def skipped(self) -> set[str]:
        """A line for each file that this process was to read and could not, with data.on_corrupt=skip."""
        held_out = self.minival.skipped if self.minival else set()
        return {*self.train.skipped, *self.test.skipped, *held_out}

    def close(self) -> None:
        """Stop the processes that decode images."""
        for loader in (self.train, self.test, self.minival):
            if loader is not None:
                loader.close()


@dataclass(frozen=True)
class TestSet:
    """The images that a run was tested on."""

    __test__ = False  # for pytest, which takes the name for its own

    dataset: Dataset
    class_names: tuple[str, ...]
    of_batches: Mapping[str, Any]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The label of every image; some sets have to decode all of them for it."""
        return labels_of(self.dataset)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """By which a record tells these images from others; raises OSError."""
        return of_dataset(self.dataset)

    def batches(
        self, places: NDArray[np.int64] | None = None, batch_size: int | None = None
    ) -> Iterator[Batch]:
        """The images at these places, in this order, or all; in batches of the run's size, or of another."""
        images = self.dataset if places is None else select(self.dataset, torch.from_numpy(places))
        given = {} if batch_size is None else {"batch_size": batch_size}
        with closing(test_loader(images, **{**self.of_batches, **given})) as loader:
            yield from loader.epoch(0)


def load_test(config: DictConfig) -> TestSet:
    """Read the test set of a configuration; raises ValueError for what is missing or does not fit."""
    source: Source = made("data.source", config.data.source)
    return TestSet(source.test, source.class_names, of_batches(config, ALONE))


def load_data(config: DictConfig, share: Share = ALONE) -> Data:
    """Read the data set and lay out its batches; raises ValueError for what is missing or does not fit."""
    augment = made("augment", config.augment)
    source: Source = made("data.source", config.data.source)
    training, held_out = training_and_held_out(source.train, config.data)
    common = of_batches(config, share)
    train = train_loader(training, augment=augment, seed=config.seed, **common)
    return Data(
        train,
        test_loader(source.test, **common),
        test_loader(held_out, **common) if held_out else None,
        source.class_names,
    )


def load_extra(config: DictConfig, class_names: tuple[str, ...], share: Share = ALONE) -> dict[str, ExtraSet]:
    """The further image sets that a model of these classes is to be evaluated on, by name.

    Raises ValueError where one is missing or a model of these classes cannot be asked about it.
    """
    make_loader = partial(test_loader, **of_batches(config, share))
    return {
        name: images.for_model(class_names, make_loader)
        for name, images in described_sets(config.eval).items()
    }


def described_sets(evaluations: DictConfig) -> dict[str, ExtraImages]:
    """The further image sets of an `eval` node by name; raises ValueError for what cannot be built."""
    described: dict[str, ExtraImages] = {}
    for name, node in evaluations.items():
        if str(node.get("_target_", "")).startswith(OF_IMAGES):
            sets: ImageSets = made(f"eval.{name}", node)
            described |= {f"{name}{part}": images for part, images in sets.parts().items()}
    return described


def num_workers() -> int:
    """One worker for each core that this process may use, shared out among the processes of this machine.

    A sweep says how many runs are at once, torchrun how many processes are of one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs, ranks = (int(os.environ.get(name, "1")) for name in ("ROUTERBENCH_JOBS", "LOCAL_WORLD_SIZE"))
    return max(cores // (jobs * ranks), 1)


def made(name: str, config: DictConfig) -> Any:
    """What a node with a `_target_` describes; raises ValueError for settings that it does not take."""
    try:
        return instantiate(config)
    except InstantiationException as error:
        # Hydra wraps what the user should read.
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError):
            raise ValueError(f"{name} cannot be built: {error.__cause__}") from error
        raise


def training_and_held_out(dataset: Dataset, data: DictConfig) -> tuple[Dataset, Dataset | None]:
    """The images to train on, and those of the minival, if there is to be one."""
    train = Part.parse("data.train_split", data.train_split)
    if train.name != "train" and "train_split" not in data.source:
        raise ValueError(f"{train.setting}: data={data.name} has train alone, or a part such as train[:99%]")
    minival = Part.parse("data.minival_split", data.minival_split) if data.minival_split else None
    num_images = len(dataset)
    places, held_out = places_of(train, minival, num_images)
    return (
        dataset if len(places) == num_images else select(dataset, chosen(places, num_images)),
        select(dataset, chosen(held_out, num_images)) if held_out else None,
    )


def of_batches(config: DictConfig, share: Share) -> dict[str, Any]:
    """What the batches of all sets have in common."""
    data, runtime = config.data, config.runtime
    # A data set in memory has nothing to decode, and no settings for it.
    files = {"on_corrupt": "error", "crop_pct": 0.875, "interpolation": "bicubic", **data}
    check_one_of("data.on_corrupt", files["on_corrupt"], ("error", "skip"))
    decoding = Decoding(
        workers=num_workers() if runtime.workers is None else runtime.workers,
        cache_gib=float(runtime.decoded_cache_gib),
        skip_corrupt=files["on_corrupt"] == "skip",
        centre_crop=CentreCrop(files["crop_pct"], files["interpolation"]),
    )
    return {
        "batch_size": config.batch_size,
        "image_size": data.image_size,
        "mean": data.mean,
        "std": data.std,
        "decoding": decoding,
        "share": share,
    }
