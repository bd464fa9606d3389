"""Augmentations: the classes behind `conf/augment`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_interp_mode
from timm.data.transforms_factory import transforms_imagenet_train
from torch import Tensor
from torchvision.transforms import Compose, TrivialAugmentWide

from routerbench.checks import check_count, check_not_negative, check_one_of
from routerbench.data.pixels import FileTransform

ERASING_MODES = ("const", "rand", "pixel")  # what timm fills with: the mean, one colour, noise
NUM_DRAWS = 5  # random numbers per image and epoch: shift down, shift right, flip down, flip right, transpose


@dataclass(frozen=True)
class NoAugmentation:
    """Training images as they are; image files get the crop of evaluation."""

    name: str

    @property
    def num_repeats(self) -> int:
        """Once: a repeated image would be the same."""
        return 1

    def erasing(self) -> None:
        """No part of an image is erased."""

    def change(
        self, images: UInt8[Tensor, "B 3 H W"], draws: Float[Tensor, "B 5"]
    ) -> UInt8[Tensor, "B 3 H W"]:
        """The same images."""
        return images


@dataclass(frozen=True, kw_only=True)
class Repeating:
    """What all augmentations have: each image comes `num_repeats` times in a batch, and may lose a rectangle.

    Raises ValueError for a setting out of its range.
    Source: E. Hoffer et al., arXiv:1901.09335 (repeats); Z. Zhong et al., arXiv:1708.04896 (random erasing).
    """

    name: str
    num_repeats: int
    random_erasing: float
    random_erasing_mode: str

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of its range."""
        check_count("augment.num_repeats", self.num_repeats)
        check_probability("augment.random_erasing", self.random_erasing)
        check_one_of("augment.random_erasing_mode", self.random_erasing_mode, ERASING_MODES)


@dataclass(frozen=True, kw_only=True)
class CropFlip(Repeating):
    """Shift by up to `padding` pixels (the border mirrored), flip and transpose, each with its probability.

    For square images in memory. Raises ValueError for a probability outside [0, 1] or a negative padding.
    """

    padding: int
    hflip: float
    vflip: float
    transpose: float

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of its range."""
        super().__post_init__()
        if self.padding < 0:
            raise ValueError(f"augment.padding={self.padding} must be 0 or more")
        for name in ("hflip", "vflip", "transpose"):
            check_probability(f"augment.{name}", getattr(self, name))

    def erasing(self) -> RandomErasing | None:
        """What erases a part of a normalised image, in place; None if nothing does."""
        if not self.random_erasing:
            return None
        return RandomErasing(self.random_erasing, mode=self.random_erasing_mode, device="cpu")

    def change(
        self, images: UInt8[Tensor, "B 3 S S"], draws: Float[Tensor, "B 5"]
    ) -> UInt8[Tensor, "B 3 S S"]:
        """The images, each changed by its own draws from [0, 1)."""
        size = images.shape[-1]
        flip = draws[:, 2:4] < draws.new_tensor([self.vflip, self.hflip])
        rows, columns = self.positions(size, draws[:, :2], flip).unbind(1)
        transpose = (draws[:, 4] < self.transpose)[:, None]
        rows = rows * size
        down, right = torch.where(transpose, columns, rows), torch.where(transpose, rows, columns)
        pixels = down[:, :, None] + right[:, None, :]
        # One gather does it all: the loader must not be felt beside a small model on two cores.
        return images.flatten(2).gather(2, pixels.flatten(1)[:, None].expand(-1, 3, -1)).view_as(images)

    def positions(
        self, size: int, shift: Float[Tensor, "B 2"], flip: Bool[Tensor, "B 2"]
    ) -> Int64[Tensor, "B 2 S"]:
        """The row, and the column, of the old image that each one of the new image shows."""
        offset = (shift * (2 * self.padding + 1)).long() - self.padding
        position = torch.arange(size) + offset[..., None]
        mirrored = (size - 1) - ((size - 1) - position.abs()).abs()
        return torch.where(flip[..., None], mirrored.flip(-1), mirrored)


@dataclass(frozen=True, kw_only=True)
class FileAugmentation(Repeating, ABC):
    """A crop of an image file, a mirror image, a policy, colour jitter, random erasing: timm's pipeline.

    Raises ValueError for a setting out of its range, or unknown to timm.
    """

    hflip: float
    color_jitter: float
    interpolation: str

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of its range, or unknown to timm."""
        super().__post_init__()
        check_probability("augment.hflip", self.hflip)
        check_not_negative("augment.color_jitter", self.color_jitter)
        try:
            self.file_transform(image_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        except (AssertionError, KeyError, ValueError) as error:  # timm asserts
            names = [name for name in ("rand_augment", "interpolation") if hasattr(self, name)]
            settings = ", ".join(f"augment.{name}={getattr(self, name)!r}" for name in names)
            raise ValueError(
                f"{settings}: timm knows {'one of them' if names[1:] else 'it'} not; give for example "
                f"{'rand-m9-mstd0.5-inc1 (or null) and ' if names[1:] else ''}bicubic"
            ) from error

    @abstractmethod
    def crop(self) -> dict[str, Any]:
        """timm's arguments for the crop and its policy."""

    def policy(self, mean: Sequence[float]) -> list[Callable[[Image.Image], Image.Image]]:
        """What changes the cropped image before its colours, if it is not one of timm's."""
        return []

    def file_transform(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> FileTransform:
        """The training transform for one image file."""
        cropped, coloured, finished = transforms_imagenet_train(
            image_size,
            hflip=self.hflip,
            color_jitter=self.color_jitter or None,  # type: ignore[arg-type]
            force_color_jitter=True,  # timm leaves it out beside RandAugment, without a word
            interpolation=self.interpolation,
            mean=tuple(mean),
            std=tuple(std),
            re_prob=self.random_erasing,
            re_mode=self.random_erasing_mode,
            separate=True,
            **self.crop(),
        )
        return cast(FileTransform, Compose([cropped, *self.policy(mean), coloured, finished]))


@dataclass(frozen=True, kw_only=True)
class InceptionCrop(FileAugmentation):
    """A random part of the image, resized; then a policy in timm's notation (null: none).

    Source: C. Szegedy et al., arXiv:1409.4842, section 6; E. Cubuk et al., arXiv:1909.13719 (RandAugment).
    """

    scale: Sequence[float]
    ratio: Sequence[float]
    rand_augment: str | None

    def crop(self) -> dict[str, Any]:
        """timm's arguments for the crop and its policy."""
        return {
            "scale": tuple(self.scale),
            "ratio": tuple(self.ratio),
            "auto_augment": self.rand_augment,
        }


@dataclass(frozen=True, kw_only=True)
class SimpleCrop(FileAugmentation):
    """The short side to the size of the crop, which is cut out at random; then a policy in timm's notation.

    Source: H. Touvron et al., DeiT III, arXiv:2204.07118, section 3.3; theirs also pads by 4 pixels.
    """

    rand_augment: str | None

    def crop(self) -> dict[str, Any]:
        """timm's arguments for the crop and its policy."""
        unchanged = (1.0, 1.0)
        return {
            "train_crop_mode": "rkrr",
            "scale": unchanged,
            "ratio": unchanged,
            "auto_augment": self.rand_augment,
        }


@dataclass(frozen=True, kw_only=True)
class TrivialCrop(FileAugmentation):
    """A random part of the image, resized; then one operation drawn at random, at a strength drawn at random.

    Source: S. Mueller, F. Hutter, TrivialAugment, arXiv:2103.10158, by torchvision.
    """

    scale: Sequence[float]
    ratio: Sequence[float]

    def crop(self) -> dict[str, Any]:
        """timm's arguments for the crop."""
        return {"scale": tuple(self.scale), "ratio": tuple(self.ratio)}

    def policy(self, mean: Sequence[float]) -> list[Callable[[Image.Image], Image.Image]]:
        """torchvision's TrivialAugment, which fills with the mean of the images."""
        fill = [round(255 * value) for value in mean]
        interpolation = str_to_interp_mode(self.interpolation)
        return [TrivialAugmentWide(interpolation=interpolation, fill=fill)]  # type: ignore[arg-type]


Augmentation = NoAugmentation | CropFlip | FileAugmentation


def for_arrays(augment: Augmentation, height: int, width: int) -> NoAugmentation | CropFlip:
    """The augmentation, if images of this size in memory can have it; raises ValueError if not."""
    if isinstance(augment, FileAugmentation):
        raise ValueError(
            f"augment={augment.name} is for image files, and this data set is held in memory: "
            "give augment=none, crop_flip or dihedral"
        )
    if isinstance(augment, CropFlip) and (height != width or augment.padding >= height):
        raise ValueError(
            f"augment.padding={augment.padding} needs square images larger than that, "
            f"and these are {height} x {width}"
        )
    return augment


def for_files(augment: Augmentation) -> NoAugmentation | FileAugmentation:
    """The augmentation, if image files can have it; raises ValueError if not."""
    if isinstance(augment, CropFlip):
        raise ValueError(
            f"augment={augment.name} is for data sets held in memory, and this one is of image files: "
            "give augment=none or imagenet"
        )
    return augment


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless 0 <= value <= 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is a probability: give 0 to 1")
