"""Attention: which of timm's two paths a model runs on, which is no part of what the model is."""

from typing import Any

import torch
from torch import nn


def choose_attention(model: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Give every attention of a timm model the path that trains fastest on this device in this precision.

    `fused` is one call of scaled_dot_product_attention, `plain` two matrix products and a softmax. On a CPU
    the backward of the fused path takes up to six times as long in bfloat16 and float16 as the plain one;
    otherwise timm's own choice stands. Gives back which it is, None for a model without such attention.
    """
    attentions: list[Any] = [module for module in model.modules() if hasattr(module, "fused_attn")]
    if device.type == "cpu" and dtype != torch.float32:
        for attention in attentions:
            attention.fused_attn = False
    if not attentions:
        return None
    return "fused" if any(attention.fused_attn for attention in attentions) else "plain"
