"""From a configuration to loaders: parts of the training set, workers, further image sets."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from routerbench import parts
from routerbench.compose import compose_sweep
from routerbench.data.extra import imagenet_classes
from routerbench.data.loaders import FileLoader, Loader
from routerbench.data.orders import Share

SMALL = ("data.image_size=8", "batch_size=2", "augment=none")


def composed(*words: str) -> DictConfig:
    return compose_sweep(words, None, False).configs[0]


def of_folder(root: Path, *words: str) -> DictConfig:
    return composed("data=folder", f"data.path={root}", "runtime.workers=0", *SMALL, *words)


def labels(loader: Loader) -> list[int]:
    return torch.cat([labels for _, labels in loader.epoch(0)]).tolist()


def test_without_a_minival_all_images_are_trained_on() -> None:
    data = parts.load_data(composed("data=digits", "batch_size=1"))
    assert data.minival is None
    assert (data.train.num_images, data.num_classes) == (1442, 10)
    assert data.class_names == tuple("0123456789")
    assert data.skipped == set()


def test_a_minival_is_held_out_of_arrays_alike_for_all_seeds() -> None:
    words = ("data=digits", "batch_size=1", "data.train_split=train[:90%]", "data.minival_split=train[90%:]")
    first, second = (parts.load_data(composed(*words, f"seed={seed}")) for seed in range(2))
    assert first.minival is not None
    assert second.minival is not None
    assert (first.train.num_images, first.minival.num_images) == (1297, 145)
    images, others = (
        torch.cat([images for images, _ in loader.epoch(0)]) for loader in (first.minival, second.minival)
    )
    assert torch.equal(images, others)
    assert set(labels(first.minival)) == set(range(10))
    of_train = {
        tuple(image.flatten().tolist())
        for image, _ in parts.load_data(composed(*words, "augment=none")).train.epoch(0)
    }
    assert not of_train & {tuple(image.flatten().tolist()) for image in images.split(1)}


def test_a_minival_is_held_out_of_files(image_root: Path) -> None:
    config = of_folder(image_root, "data.train_split=train[:4]", "data.minival_split=train[4:]")
    data = parts.load_data(config)
    assert data.minival is not None
    assert (data.train.num_images, data.minival.num_images, data.test.num_images) == (4, 2, 5)
    assert sorted(labels(data.train) + labels(data.minival)) == [0, 0, 0, 1, 1, 1]


def test_a_split_that_a_set_in_memory_has_not() -> None:
    text = "data.train_split=val: data=digits has train alone, or a part such as train[:99%]"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parts.load_data(composed("data=digits", "data.train_split=val"))


def test_a_policy_for_corrupt_files_that_is_none(image_root: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.on_corrupt=ignore is not one of: error, skip$"):
        parts.load_data(of_folder(image_root, "data.on_corrupt=ignore"))


def test_corrupt_files_are_named_by_the_data(image_root: Path) -> None:
    for path in ("train/cat/1.png", "val/dog/0.png"):
        (image_root / path).write_text("no image")
    words = ("data.on_corrupt=skip", "data.train_split=train[:4]", "data.minival_split=train[4:]")
    data = parts.load_data(of_folder(image_root, *words))
    for loader in (data.train, data.test, data.minival):
        assert loader is not None
        for epoch in range(2):
            list(loader.epoch(epoch))
    assert {line.split()[0] for line in data.skipped} == {
        str(image_root / path) for path in ("train/cat/1.png", "val/dog/0.png")
    }


def test_ranks_share_training_and_test_images(image_root: Path) -> None:
    data = [parts.load_data(of_folder(image_root), Share(rank, 2, 1)) for rank in range(2)]
    assert [(one.train.num_images, one.test.num_images) for one in data] == [(3, 2), (3, 3)]
    assert labels(data[0].test) + labels(data[1].test) == [0, 0, 1, 1, 1]


def test_as_many_workers_as_cores_shared_out_among_processes(
    image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)), raising=False)

    def workers(*words: str) -> int:
        loader = parts.load_data(of_folder(image_root, *words)).train
        assert isinstance(loader, FileLoader)
        return loader.decoding.workers

    assert workers("runtime.workers=null") == 12
    assert workers("runtime.workers=3") == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert workers("runtime.workers=null") == 1


def test_further_image_sets_are_chosen_by_name(tmp_path: Path) -> None:
    words = (
        "+eval=[imagenet_v2,imagenet_sketch]",
        f"eval.imagenet_v2.path={tmp_path / 'v2'}",
        f"eval.imagenet_sketch.path={tmp_path / 'sketch'}",
    )
    for number, name in enumerate(imagenet_classes()):
        for folder in (tmp_path / "v2" / str(number), tmp_path / "sketch" / name):
            folder.mkdir(parents=True)
            (folder / "0.jpg").touch()
    extra = parts.load_extra(composed("data=folder", *words), imagenet_classes(), Share(0, 2, 1))
    assert list(extra) == ["imagenet_v2", "imagenet_sketch"]
    assert [one.loader.num_images for one in extra.values()] == [512, 512]  # eight batches of 64
    with pytest.raises(ValueError, match=r"^eval\.imagenet_v2 is for models of ImageNet-1k's 1000 classes"):
        parts.load_extra(composed(*words), ("cat", "dog"))


def test_no_further_image_sets() -> None:
    assert parts.load_extra(composed(), ("cat", "dog")) == {}
    config = composed()
    config.eval = {"another": {"shots": [1]}}  # an evaluation that is no image set
    assert parts.load_extra(config, ("cat", "dog")) == {}
