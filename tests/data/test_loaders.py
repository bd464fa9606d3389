"""Batches hang on seed, epoch and image alone, and every test image comes once."""

import dataclasses
import errno
import multiprocessing
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from routerbench.data import loaders, sources
from routerbench.data.image_files import CorruptImageError, EncodedFiles
from routerbench.data.loaders import Decoding, FileLoader, Loader
from routerbench.data.orders import ALONE, Share
from routerbench.data.pixels import CentreCrop
from routerbench.data.sources import Arrays
from routerbench.data.transforms import Augmentation, CropFlip, InceptionCrop, NoAugmentation

# Python 3.12 warns that forking a process with threads may lock; torch's loader forks.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on a machine of few cores
]

NONE = NoAugmentation("none")
ONCE: dict[str, Any] = {"num_repeats": 1, "random_erasing": 0.0, "random_erasing_mode": "pixel"}
CROP_FLIP = CropFlip(name="crop_flip", padding=2, hflip=0.5, vflip=0.5, transpose=0.5, **ONCE)
IMAGENET = InceptionCrop(
    name="imagenet",
    scale=(0.5, 1.0),
    ratio=(0.75, 1.33),
    hflip=0.5,
    rand_augment="rand-m9-mstd0.5-inc1",
    color_jitter=0.0,
    interpolation="bicubic",
    **ONCE,
)


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def folder(root: Path) -> sources.Source:
    return sources.folder(str(root), train_split="train", test_split=None, class_map=None)


@pytest.fixture
def arrays() -> Arrays:
    """Eleven noisy images of 8 x 8, each labelled with its place."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (11, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Arrays(images, torch.arange(11))


COLOURS: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def decoding(workers: int = 0, cache_gib: float = 1.0, skip_corrupt: bool = False) -> Decoding:
    return Decoding(workers, cache_gib, skip_corrupt, CentreCrop(0.875, "bicubic"))


def training(
    dataset: Any,
    augment: Augmentation,
    batch_size: int = 4,
    image_size: int = 8,
    seed: int = 0,
    share: Share = ALONE,
    **of_decoding: Any,
) -> Loader:
    return loaders.train_loader(
        dataset,
        batch_size=batch_size,
        image_size=image_size,
        augment=augment,
        seed=seed,
        share=share,
        decoding=decoding(**of_decoding),
        **COLOURS,
    )


def evaluation(dataset: Any, batch_size: int, share: Share = ALONE, **of_decoding: Any) -> Loader:
    return loaders.test_loader(
        dataset,
        batch_size=batch_size,
        image_size=8,
        share=share,
        decoding=decoding(**of_decoding),
        **COLOURS,
    )


def all_of(loader: Loader, epoch: int) -> tuple[Tensor, Tensor]:
    batches = list(loader.epoch(epoch))
    assert len(batches) == len(loader)
    images, labels = torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
    assert len(labels) == loader.num_images
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    return images, labels


def test_training_shuffles_and_drops_the_smaller_batch(arrays: Arrays) -> None:
    loader = training(arrays, NONE)
    assert (len(loader), loader.num_images) == (2, 8)
    images, labels = all_of(loader, epoch=0)
    assert len(set(labels.tolist())) == 8
    assert labels.tolist() != sorted(labels.tolist())
    assert torch.allclose(images, arrays.images[labels] / 255)


def test_evaluation_has_every_image_once_in_order(arrays: Arrays) -> None:
    loader = evaluation(arrays, batch_size=4)
    assert (len(loader), loader.num_images) == (3, 11)
    assert [len(labels) for _, labels in loader.epoch(0)] == [4, 4, 3]
    images, labels = all_of(loader, epoch=0)
    assert labels.tolist() == list(range(11))
    assert torch.allclose(images, arrays.images / 255)


def test_images_in_memory_are_resized_where_the_setting_says_so(arrays: Arrays) -> None:
    assert next(training(arrays, CROP_FLIP, image_size=16).epoch(0))[0].shape == (4, 3, 16, 16)


def test_same_seed_and_epoch_give_the_same_batches(arrays: Arrays) -> None:
    images, labels = all_of(training(arrays, CROP_FLIP), epoch=3)
    torch.manual_seed(99)  # of no consequence
    again, labels_again = all_of(training(arrays, CROP_FLIP), epoch=3)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    for other in (all_of(training(arrays, CROP_FLIP), 4), all_of(training(arrays, CROP_FLIP, seed=1), 3)):
        assert not torch.equal(labels, other[1])


def test_an_image_is_augmented_alike_whatever_the_batch_size(arrays: Arrays) -> None:
    def by_label(batch_size: int) -> dict[int, Tensor]:
        images, labels = all_of(training(arrays, CROP_FLIP, batch_size=batch_size), epoch=0)
        return dict(zip(labels.tolist(), images, strict=True))

    small, large = by_label(2), by_label(5)
    for label in small.keys() & large.keys():
        assert torch.equal(small[label], large[label])


def test_an_image_is_augmented_anew_in_each_epoch(arrays: Arrays) -> None:
    loader = training(arrays, CROP_FLIP, batch_size=11)
    views = []
    for epoch in range(8):
        images, labels = all_of(loader, epoch)
        views.append(images[labels == 0][0])
    assert len(torch.stack(views).flatten(1).unique(dim=0)) > 4


@pytest.mark.parametrize("workers", [0, 2])
def test_image_files_do_not_hang_on_workers(image_root: Path, workers: int) -> None:
    train = folder(image_root).train
    images, labels = all_of(training(train, IMAGENET, batch_size=3, workers=workers), epoch=1)
    random.seed(5)
    expected, expected_labels = all_of(training(train, IMAGENET, batch_size=2), epoch=1)
    assert images.shape == (6, 3, 8, 8)
    assert torch.equal(images, expected)
    assert torch.equal(labels, expected_labels)
    assert not torch.equal(images, all_of(training(train, IMAGENET, batch_size=3), epoch=2)[0])


def test_image_files_of_the_test_set_come_once_in_order(image_root: Path) -> None:
    images, labels = all_of(evaluation(folder(image_root).test, batch_size=2), epoch=0)
    assert labels.tolist() == [0, 0, 1, 1, 1]
    # The colours of conftest, (40 * number, 200 * label, 100), far from the white pixel.
    expected = [[0, 0, 100], [40, 0, 100], [0, 200, 100], [40, 200, 100], [80, 200, 100]]
    assert (images[:, :, -1, -1] * 255).round().int().tolist() == expected


def count_decodings(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    """Let a line for each decoding, in whatever process, be written to `log`."""
    log.touch()
    read = EncodedFiles.read

    def counted(files: EncodedFiles, index: int) -> Any:
        with log.open("a") as file:
            file.write(f"{files.name(index)}\n")
        return read(files, index)

    monkeypatch.setattr(EncodedFiles, "read", counted)


@pytest.mark.parametrize("workers", [0, 2])
def test_image_files_that_fit_are_decoded_once(
    image_root: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    train = folder(image_root).train
    assert isinstance(train, EncodedFiles)
    log = image_root / "decoded"
    count_decodings(monkeypatch, log)
    kept = training(train, IMAGENET, batch_size=3, workers=workers)
    batches = [all_of(kept, epoch) for epoch in range(2)]
    assert sorted(log.read_text().split()) == sorted(train.name(index) for index in range(6))
    anew = training(train, IMAGENET, batch_size=3, workers=workers, cache_gib=0.0)
    for epoch, (images, labels) in enumerate(batches):
        expected, expected_labels = all_of(anew, epoch)
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)
    assert len(log.read_text().split()) == 3 * len(train)


# Six images of 4 x 4 pixels in three colours, and a byte for each of them.
@pytest.mark.parametrize(("num_bytes", "decodings"), [(6 * (3 * 16 + 1), 6), (6 * (3 * 16 + 1) - 1, 12)])
def test_a_split_is_kept_as_a_whole_or_not_at_all(
    image_root: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int, decodings: int
) -> None:
    count_decodings(monkeypatch, image_root / "decoded")
    loader = training(folder(image_root).train, NONE, batch_size=3, cache_gib=num_bytes / 2**30)
    for epoch in range(2):
        all_of(loader, epoch)
    assert len((image_root / "decoded").read_text().split()) == decodings


def test_a_disk_that_fills_up_costs_no_image(image_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    train = folder(image_root).train
    expected = all_of(training(train, NONE, batch_size=3), 0)[0]
    monkeypatch.setattr("os.pwrite", full)
    loader = training(train, NONE, batch_size=3)
    assert torch.equal(all_of(loader, 0)[0], expected)


def test_a_file_that_is_another_than_its_header_said_is_decoded_anew(image_root: Path) -> None:
    test = folder(image_root).test
    loader = evaluation(test, batch_size=2)
    assert isinstance(loader, FileLoader)
    read = loader.images.read
    assert read(0)[0].size == (4, 4)
    path = image_root / "val" / "cat" / "1.png"
    Image.new("RGB", (6, 2), (7, 8, 9)).save(path)
    for _ in range(2):
        image, label = read(1)
        assert (image.size, image.getpixel((5, 1)), label) == ((6, 2), (7, 8, 9), 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_left_alone(arrays: Arrays, image_root: Path, workers: int) -> None:
    # Python's own is left to test_randomness: beartype draws from it while it checks types.
    expected_numpy = np.random.RandomState()
    expected_numpy.set_state(np.random.get_state())
    torch_before = torch.get_rng_state()
    all_of(training(arrays, CROP_FLIP), epoch=0)
    files = folder(image_root)
    all_of(training(files.train, IMAGENET, batch_size=3, workers=workers), epoch=0)
    all_of(evaluation(files.test, batch_size=3, workers=workers), epoch=0)
    assert np.random.rand() == expected_numpy.rand()
    assert torch.equal(torch.get_rng_state(), torch_before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("num_bytes", [0, 20, 50])
def test_a_corrupt_image_is_named_in_one_line(image_root: Path, num_bytes: int, workers: int) -> None:
    path = image_root / "val" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:num_bytes])
    loader = evaluation(folder(image_root).test, batch_size=2, workers=workers)
    pattern = rf"^{re.escape(str(path))} cannot be read as an image \(\w+\): replace or remove it$"
    with pytest.raises(ValueError, match=pattern) as caught:
        list(loader.epoch(0))
    assert "\n" not in str(caught.value)


def test_a_batch_larger_than_the_set(arrays: Arrays) -> None:
    text = "batch_size=12 is more than the 11 training images: give at most that"
    with pytest.raises(ValueError, match=exactly(text)):
        training(arrays, NONE, batch_size=12)


def test_an_augmentation_for_files_on_arrays(arrays: Arrays) -> None:
    text = (
        "augment=imagenet is for image files, and this data set is held in memory: "
        "give augment=none, crop_flip or dihedral"
    )
    with pytest.raises(ValueError, match=exactly(text)):
        training(arrays, IMAGENET)


def test_an_augmentation_for_arrays_on_files(image_root: Path) -> None:
    text = (
        "augment=crop_flip is for data sets held in memory, and this one is of image files: "
        "give augment=none or imagenet"
    )
    with pytest.raises(ValueError, match=exactly(text)):
        training(folder(image_root).train, CROP_FLIP)


def test_a_padding_as_large_as_the_image(arrays: Arrays) -> None:
    text = "augment.padding=8 needs square images larger than that, and these are 8 x 8"
    with pytest.raises(ValueError, match=exactly(text)):
        training(arrays, CropFlip(name="crop_flip", padding=8, hflip=0.0, vflip=0.0, transpose=0.0, **ONCE))


def test_a_file_that_is_no_image_is_named(image_root: Path) -> None:
    path = image_root / "train" / "cat" / "0.png"
    path.write_text("no image")
    text = f"{path} cannot be read as an image (UnidentifiedImageError): replace or remove it"
    with pytest.raises(ValueError, match=exactly(text)):
        all_of(training(folder(image_root).train, IMAGENET, batch_size=3), epoch=0)


REPEATED = CropFlip(
    name="crop_flip",
    padding=2,
    hflip=0.5,
    vflip=0.5,
    transpose=0.5,
    num_repeats=2,
    random_erasing=0.7,
    random_erasing_mode="pixel",
)
REPEATED_FILES = InceptionCrop(
    name="imagenet",
    scale=(0.5, 1.0),
    ratio=(0.75, 1.33),
    hflip=0.5,
    rand_augment="3a",
    color_jitter=0.3,
    interpolation="bicubic",
    num_repeats=2,
    random_erasing=0.7,
    random_erasing_mode="rand",
)


@pytest.fixture
def many_files(tmp_path: Path) -> sources.Source:
    """Twenty-two noisy images to train on and eleven to test on, of two classes."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 11), ("val", 6)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number:02}.png")
    (tmp_path / "val" / "dog" / "05.png").unlink()
    return folder(tmp_path)


def assert_same(batches: list[loaders.Batch], expected: list[loaders.Batch]) -> None:
    assert len(batches) == len(expected)
    for batch, wanted in zip(batches, expected, strict=True):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch, wanted, strict=True))


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_training_hangs_on_neither_workers_nor_ranks_nor_start(
    many_files: sources.Source, workers: int, num_ranks: int
) -> None:
    expected = list(training(many_files.train, REPEATED_FILES, batch_size=8).epoch(1))
    together = [(torch.full_like(images, torch.nan), labels - 9) for images, labels in expected]
    for rank in range(num_ranks):
        share = Share(rank, num_ranks, num_parts=2)
        loader = training(many_files.train, REPEATED_FILES, batch_size=8, share=share, workers=workers)
        batches = list(loader.epoch(1))
        assert_same(list(loader.epoch(1, start=1)), batches[1:])
        for (images, labels), (own, its_labels) in zip(together, batches, strict=True):
            images[share.rows(8)], labels[share.rows(8)] = own, its_labels
    assert_same(together, expected)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_training_from_memory_hangs_on_neither_ranks_nor_start(arrays: Arrays, num_ranks: int) -> None:
    expected = list(training(arrays, REPEATED).epoch(1))
    together = [(torch.full_like(images, torch.nan), labels - 99) for images, labels in expected]
    for rank in range(num_ranks):
        share = Share(rank, num_ranks, num_parts=1)
        loader = training(arrays, REPEATED, share=share)
        batches = list(loader.epoch(1))
        assert_same(list(loader.epoch(1, start=1)), batches[1:])
        for (images, labels), (own, its_labels) in zip(together, batches, strict=True):
            images[share.rows(4)], labels[share.rows(4)] = own, its_labels
    assert_same(together, expected)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_the_ranks_of_an_evaluation_make_up_the_test_set(
    many_files: sources.Source, workers: int, num_ranks: int
) -> None:
    expected = list(evaluation(many_files.test, batch_size=4).epoch(0))
    batches = []
    for rank in range(num_ranks):
        loader = evaluation(many_files.test, batch_size=4, share=Share(rank, num_ranks, 2), workers=workers)
        own = list(loader.epoch(0))
        assert (len(own), sum(len(labels) for _, labels in own)) == (len(loader), loader.num_images)
        batches += own
    assert_same(batches, expected)


def test_the_first_batches_are_not_read_where_an_epoch_begins_later(
    many_files: sources.Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    count_decodings(monkeypatch, tmp_path / "decoded")
    list(training(many_files.train, IMAGENET, batch_size=4, cache_gib=0.0).epoch(0, start=3))
    assert len((tmp_path / "decoded").read_text().split()) == 2 * 4


def test_workers_live_on_from_epoch_to_epoch(many_files: sources.Source) -> None:
    loader = training(many_files.train, IMAGENET, batch_size=4, workers=1)
    before = set(multiprocessing.active_children())
    workers = []
    for epoch in range(2):
        expected = list(training(many_files.train, IMAGENET, batch_size=4).epoch(epoch))
        assert_same(list(loader.epoch(epoch)), expected)
        workers.append(set(multiprocessing.active_children()) - before)
    assert len(workers[0]) == 1
    assert workers[0] == workers[1]
    loader.close()
    assert set(multiprocessing.active_children()) == before


def test_workers_end_with_an_epoch_that_is_left(many_files: sources.Source) -> None:
    loader = training(many_files.train, IMAGENET, batch_size=4, workers=1)
    before = set(multiprocessing.active_children())
    batches = loader.epoch(0)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 1
    del batches
    assert set(multiprocessing.active_children()) == before
    assert len(list(loader.epoch(0))) == len(loader)


def test_a_repeated_image_is_augmented_each_time_anew(arrays: Arrays) -> None:
    loader = training(arrays, REPEATED, batch_size=10)
    (images, labels) = next(iter(loader.epoch(0)))
    assert labels[:5].tolist() == labels[5:].tolist()
    assert len(set(labels.tolist())) == 5
    assert not any(torch.equal(images[row], images[row + 5]) for row in range(5))
    # The first of each is that of an epoch without repeats.
    plain = dataclasses.replace(REPEATED, num_repeats=1)
    assert torch.equal(next(iter(training(arrays, plain, batch_size=10).epoch(0)))[0][:5], images[:5])


def test_erasing_touches_some_images_and_a_part_of_each(arrays: Arrays) -> None:
    erasing = dataclasses.replace(CROP_FLIP, random_erasing=0.5, random_erasing_mode="const")
    images, _ = all_of(training(arrays, erasing, batch_size=11), epoch=0)
    plain, _ = all_of(training(arrays, CROP_FLIP, batch_size=11), epoch=0)
    differs = (images != plain).any(1).flatten(1)
    assert 0 < differs.any(1).sum() < 11
    assert not differs.all(1).any()
    assert (images[(images != plain)] == 0).all()  # with this mean, which is subtracted
    assert torch.equal(images, all_of(training(arrays, erasing, batch_size=11), epoch=0)[0])


def test_more_repeats_than_a_batch_has_images(arrays: Arrays) -> None:
    text = "augment.num_repeats=2 is more than batch_size=1: give at most that"
    with pytest.raises(ValueError, match=exactly(text)):
        training(arrays, REPEATED, batch_size=1)


def corrupt(files: Any, indices: list[int]) -> None:
    for index in indices:
        Path(files.name(index)).write_bytes(b"no image")


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_the_next_image_stands_in_for_a_corrupt_one(
    many_files: sources.Source, workers: int, num_ranks: int
) -> None:
    train: Any = many_files.train
    (samples,) = training(train, NONE, batch_size=22).order.batches(0, 0)
    order = samples.tolist()
    corrupt(train, order[3:5])
    whole = training(train, NONE, batch_size=4, skip_corrupt=True)
    expected = [*order[:3], order[5], order[5], *order[5:20]]
    images, labels = all_of(whole, epoch=0)
    assert labels.tolist() == [train.label(index) for index in expected]
    assert torch.equal(images[3], images[5])
    assert torch.equal(images[4], images[5])
    skipped = set()
    for rank in range(num_ranks):
        share = Share(rank, num_ranks, 1)
        loader = training(train, NONE, batch_size=4, skip_corrupt=True, share=share, workers=workers)
        for epoch in range(2):
            for number, (own, _) in enumerate(loader.epoch(epoch)):
                if epoch == 0:
                    assert torch.equal(own, images[4 * number : 4 * number + 4][share.rows(4)])
        skipped |= loader.skipped
    assert len(skipped) == 2  # each file is counted once
    assert {line.split()[0] for line in skipped} == {train.name(index) for index in order[3:5]}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_leaves_corrupt_images_out(many_files: sources.Source, workers: int) -> None:
    test: Any = many_files.test
    images, labels = all_of(evaluation(test, batch_size=4), epoch=0)
    corrupt(test, [2, 8, 9, 10])  # of the last batch none is left
    loader = evaluation(test, batch_size=4, skip_corrupt=True, workers=workers)
    batches = list(loader.epoch(0))
    assert [len(batch[1]) for batch in batches] == [3, 4]
    left = [0, 1, 3, 4, 5, 6, 7]
    assert torch.equal(torch.cat([batch[0] for batch in batches]), images[left])
    assert torch.equal(torch.cat([batch[1] for batch in batches]), labels[left])
    assert {line.split()[0] for line in loader.skipped} == {test.name(index) for index in (2, 8, 9, 10)}


def test_more_corrupt_images_than_can_be_an_accident(many_files: sources.Source) -> None:
    train: Any = many_files.train
    corrupt(train, list(range(22)))
    loader = training(train, NONE, batch_size=4, skip_corrupt=True)
    pattern = (
        r"\.png cannot be read .* replace or remove it, and those after it, which could stand in for it$"
    )
    with pytest.raises(CorruptImageError, match=pattern):
        next(iter(loader.epoch(0)))
