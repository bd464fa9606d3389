"""Backbones that timm does not have, registered with it: `timm.create_model` knows them after the import."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

_POCKET = {"num_classes": 10, "input_size": (3, 32, 32)}

default_cfgs = generate_default_cfgs(
    {
        "pocket_vit": {**_POCKET, "fixed_input_size": True},
        "pocket_convnext": _POCKET,
        "pocket_convnext_iso": _POCKET,
        "vit_s32": {"num_classes": 1000, "input_size": (3, 224, 224), "fixed_input_size": True},
        "convnext_iso_small": {"num_classes": 1000, "input_size": (3, 224, 224)},
        "convnext_iso_base": {"num_classes": 1000, "input_size": (3, 224, 224)},
    }
)


class IsotropicConvNeXt(nn.Module):
    """ConvNeXt blocks of one width at one resolution behind a patch embedding (Liu et al. 2022, section 3.3).

    Images `(B, 3, H, W)` give logits `(B, num_classes)`; H and W are multiples of `patch_size`.
    """

    def __init__(
        self,
        patch_size: int,
        depth: int,
        dim: int,
        num_classes: int,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = dim
        self.stem = nn.Conv2d(in_chans, dim, patch_size, stride=patch_size)
        self.blocks = nn.Sequential(
            *(
                ConvNeXtBlock(dim, ls_init_value=None, drop_path=drop_path_rate * index / max(depth - 1, 1))
                for index in range(depth)
            )
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        self.apply(_init_weights)

    def forward(self, images: Tensor) -> Tensor:
        """Mean of the last feature map, normalised and classified."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map `(B, dim, H, W)`."""
        side = self.stem.stride[0]
        fits = images.shape[-2] % side == images.shape[-1] % side == 0
        assert fits, f"its patches are {side} x {side}, so give a multiple of that"
        return self.blocks(self.stem(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of a feature map, or with `pre_logits` what the classifier sees, `(B, dim)`."""
        pooled = self.norm(features.mean((-2, -1)))
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The layers in their order, as timm asks for them."""
        return {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


@register_model
def pocket_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """A ViT of width 64, 6 blocks and 8 x 8 patches, for 32 x 32 images on a CPU."""
    size = {"patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 4}
    return _vit("pocket_vit", pretrained, {**size, **kwargs})


@register_model
def pocket_convnext(pretrained: bool = False, **kwargs: Any) -> ConvNeXt:
    """A ConvNeXt of widths 32 to 128 in four stages, for 32 x 32 images on a CPU."""
    size = {"patch_size": 4, "depths": (1, 1, 3, 1), "dims": (32, 64, 96, 128)}
    return build_model_with_cfg(ConvNeXt, "pocket_convnext", pretrained, **{**size, **kwargs})


@register_model
def pocket_convnext_iso(pretrained: bool = False, **kwargs: Any) -> IsotropicConvNeXt:
    """An isotropic ConvNeXt of width 64 and 6 blocks, for 32 x 32 images on a CPU."""
    size = {"patch_size": 4, "depth": 6, "dim": 64}
    return _isotropic("pocket_convnext_iso", pretrained, {**size, **kwargs})


@register_model
def vit_s32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """V-MoE's S/32: width 512 and 8 blocks, which is not the usual ViT-S (Riquelme et al. 2021)."""
    size = {"patch_size": 32, "embed_dim": 512, "depth": 8, "num_heads": 8}
    return _vit("vit_s32", pretrained, {**size, **kwargs})


@register_model
def convnext_iso_small(pretrained: bool = False, **kwargs: Any) -> IsotropicConvNeXt:
    """Isotropic ConvNeXt-S: 18 blocks of width 384, 22.3 M parameters."""
    return _isotropic("convnext_iso_small", pretrained, {"patch_size": 16, "depth": 18, "dim": 384, **kwargs})


@register_model
def convnext_iso_base(pretrained: bool = False, **kwargs: Any) -> IsotropicConvNeXt:
    """Isotropic ConvNeXt-B: 18 blocks of width 768, 87 M parameters with 1,000 classes."""
    return _isotropic("convnext_iso_base", pretrained, {"patch_size": 16, "depth": 18, "dim": 768, **kwargs})


def _vit(name: str, pretrained: bool, kwargs: dict[str, Any]) -> VisionTransformer:
    return build_model_with_cfg(
        VisionTransformer, name, pretrained, pretrained_filter_fn=checkpoint_filter_fn, **kwargs
    )


def _isotropic(name: str, pretrained: bool, kwargs: dict[str, Any]) -> IsotropicConvNeXt:
    return build_model_with_cfg(IsotropicConvNeXt, name, pretrained, kwargs_filter=("global_pool",), **kwargs)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
