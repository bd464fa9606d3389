"""What every image gets, augmented or not: cut out, resized, normalised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from PIL import Image
from timm.data.transforms import str_to_interp_mode
from timm.data.transforms_factory import transforms_imagenet_eval
from torch import Tensor

FileTransform = Callable[[Image.Image], Float[Tensor, "3 H W"]]


@dataclass(frozen=True)
class CentreCrop:
    """ImageNet's protocol of evaluation: short side to size / `crop_pct`, the centre cut out, normalised.

    Raises ValueError for a share outside ]0, 1] or an interpolation that timm does not know.
    """

    crop_pct: float
    interpolation: str

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of its range, or unknown to timm."""
        if not 0 < self.crop_pct <= 1:
            raise ValueError(
                f"data.crop_pct={self.crop_pct} is a share of the short side: give more than 0, at most 1"
            )
        try:
            str_to_interp_mode(self.interpolation)
        except KeyError as error:
            raise ValueError(
                f"data.interpolation={self.interpolation} is unknown to timm: give bicubic or bilinear"
            ) from error

    def file_transform(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> FileTransform:
        """The transform for one image file."""
        transform = transforms_imagenet_eval(
            image_size,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            mean=tuple(mean),
            std=tuple(std),
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


def as_pictures(
    images: Float[np.ndarray, "B 3 H W"], mean: Sequence[float], std: Sequence[float]
) -> Float[np.ndarray, "B H W 3"]:
    """Images that `normalise` made, as they were before it: in [0, 1], the channels last."""
    scale, shift = (np.asarray(values, images.dtype) for values in (std, mean))
    return np.clip(images.transpose(0, 2, 3, 1) * scale + shift, 0, 1)
