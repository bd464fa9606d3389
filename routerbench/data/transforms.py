"""Augmentations, the classes behind `conf/augment`, and what every image gets: resizing, normalising."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Real, UInt8
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor

FileTransform = Callable[[Image.Image], Float[Tensor, "3 H W"]]
NUM_DRAWS = 5  # random numbers per image and epoch: shift down, shift right, flip down, flip right, transpose


@dataclass(frozen=True)
class NoAugmentation:
    """Training images as they are; image files get the crop of evaluation."""

    name: str

    def change(
        self, images: UInt8[Tensor, "B 3 H W"], draws: Float[Tensor, "B 5"]
    ) -> UInt8[Tensor, "B 3 H W"]:
        """The same images."""
        return images

    def file_transform(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> FileTransform:
        """The transform of evaluation."""
        return evaluation_transform(image_size, mean, std)


@dataclass(frozen=True)
class CropFlip:
    """Shift by up to `padding` pixels (the border mirrored), flip and transpose, each with its probability.

    For square images in memory. Raises ValueError for a probability outside [0, 1] or a negative padding.
    """

    name: str
    padding: int
    hflip: float
    vflip: float
    transpose: float

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of its range."""
        if self.padding < 0:
            raise ValueError(f"augment.padding={self.padding} must be 0 or more")
        for name in ("hflip", "vflip", "transpose"):
            check_probability(f"augment.{name}", getattr(self, name))

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


@dataclass(frozen=True)
class InceptionCrop:
    """A random part of the image file, resized; a flip; RandAugment in timm's notation (null: none).

    Raises ValueError for a setting that timm does not know.
    Source: C. Szegedy et al., arXiv:1409.4842, section 6; E. Cubuk et al., arXiv:1909.13719 (RandAugment).
    """

    name: str
    scale: Sequence[float]
    ratio: Sequence[float]
    hflip: float
    rand_augment: str | None
    interpolation: str

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of its range, or unknown to timm."""
        check_probability("augment.hflip", self.hflip)
        try:
            self.file_transform(image_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        except (AssertionError, KeyError, ValueError) as error:  # timm asserts
            raise ValueError(
                f"augment.rand_augment={self.rand_augment!r}, augment.interpolation={self.interpolation!r}: "
                "timm knows one of them not; give for example rand-m9-mstd0.5-inc1 (or null) and bicubic"
            ) from error

    def file_transform(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> FileTransform:
        """timm's training transform for one image file."""
        transform = create_transform(
            image_size,
            is_training=True,
            scale=(self.scale[0], self.scale[1]),
            ratio=(self.ratio[0], self.ratio[1]),
            hflip=self.hflip,
            color_jitter=0.0,
            auto_augment=self.rand_augment,
            interpolation=self.interpolation,
            mean=tuple(mean),
            std=tuple(std),
        )
        return cast(FileTransform, transform)


Augmentation = NoAugmentation | CropFlip | InceptionCrop


def for_arrays(augment: Augmentation, height: int, width: int) -> NoAugmentation | CropFlip:
    """The augmentation, if images of this size in memory can have it; raises ValueError if not."""
    if isinstance(augment, InceptionCrop):
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


def for_files(augment: Augmentation) -> NoAugmentation | InceptionCrop:
    """The augmentation, if image files can have it; raises ValueError if not."""
    if isinstance(augment, CropFlip):
        raise ValueError(
            f"augment={augment.name} is for data sets held in memory, and this one is of image files: "
            "give augment=none or imagenet"
        )
    return augment


def evaluation_transform(image_size: int, mean: Sequence[float], std: Sequence[float]) -> FileTransform:
    """ImageNet's protocol for one image file: short side to size / 0.875, the centre cut out, normalised."""
    transform = create_transform(
        image_size, mean=tuple(mean), std=tuple(std), crop_pct=0.875, interpolation="bicubic"
    )
    return cast(FileTransform, transform)


def resize(images: Real[Tensor, "B 3 h w"], image_size: int) -> Real[Tensor, "B 3 H W"]:
    """The images at `image_size` x `image_size`, bilinear in float32; unchanged where they have that size."""
    size = (image_size, image_size)
    if images.shape[2:] == size:
        return images
    return F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False, antialias=True)


def normalise(
    images: Real[Tensor, "B 3 H W"], mean: Float[Tensor, "3 1 1"], std: Float[Tensor, "3 1 1"]
) -> Float[Tensor, "B 3 H W"]:
    """Values 0 to 255 to deviations from `mean` in units of `std`, both of images in [0, 1]."""
    # One copy, changed in place: large tensors are dear beside a small model.
    return images.to(torch.float32, copy=True).mul_(1 / (255 * std)).sub_(mean / std)


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless 0 <= value <= 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is a probability: give 0 to 1")
