"""A whole V-MoE of the published code, loaded into timm's VisionTransformer with our layers."""

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from routerbench.build import sparsify
from routerbench.moe.layer import MoE
from routerbench.moe.surgery import moe_layers

if TYPE_CHECKING:
    from tests.conftest import Golden, ReadGolden

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


def model_of(config: dict) -> VisionTransformer:
    encoder = config["encoder"]
    router = encoder["moe"]["router"]
    model = VisionTransformer(
        img_size=16,
        patch_size=config["patch_size"][0],
        num_classes=config["num_classes"],
        embed_dim=config["hidden_size"],
        depth=encoder["num_layers"],
        num_heads=encoder["num_heads"],
        mlp_ratio=encoder["mlp_dim"] / config["hidden_size"],
        act_layer=partial(nn.GELU, approximate="tanh"),  # pyright: ignore[reportArgumentType]
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # pyright: ignore[reportArgumentType]
    )
    sparsify(
        model,
        "token_choice",
        num_experts=encoder["moe"]["num_experts"],
        placement=encoder["moe"]["layers"],
        group=2,
        top_k=router["num_selected_experts"],
        capacity_factor=router["dispatcher"]["capacity_factor"],
        capacity_multiple_of=4,
        importance_weight=router["importance_loss_weight"],
        load_weight=router["load_loss_weight"],
    )
    return model.eval()


def timm_names(flax: dict[str, Tensor], num_blocks: int) -> dict[str, Tensor]:
    """Parameters, or their gradients, by timm's names and in its layouts."""
    width = flax["cls"].shape[-1]
    state = {
        "cls_token": flax["cls"],
        "pos_embed": flax["Encoder/posembed_input/pos_embedding"],
        "patch_embed.proj.weight": flax["embedding/kernel"].permute(3, 2, 0, 1),
        "patch_embed.proj.bias": flax["embedding/bias"],
        "norm.weight": flax["Encoder/encoder_norm/scale"],
        "norm.bias": flax["Encoder/encoder_norm/bias"],
        "head.weight": flax["head/kernel"].T,
        "head.bias": flax["head/bias"],
    }
    for i in range(num_blocks):
        start = f"Encoder/encoderblock_{i}/"
        block = {name.removeprefix(start): value for name, value in flax.items() if name.startswith(start)}
        state |= {f"blocks.{i}.{name}": value for name, value in _block(block, width).items()}
    return state


def _block(flax: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    attention = [f"SelfAttention/{name}" for name in ("query", "key", "value")]
    names = {
        "norm1.weight": flax["LayerNorm_0/scale"],
        "norm1.bias": flax["LayerNorm_0/bias"],
        "norm2.weight": flax["LayerNorm_1/scale"],
        "norm2.bias": flax["LayerNorm_1/bias"],
        "attn.qkv.weight": torch.cat([flax[f"{a}/kernel"].reshape(width, width).T for a in attention]),
        "attn.qkv.bias": torch.cat([flax[f"{a}/bias"].flatten() for a in attention]),
        "attn.proj.weight": flax["SelfAttention/out/kernel"].reshape(width, width).T,
        "attn.proj.bias": flax["SelfAttention/out/bias"],
    }
    if "Mlp/Dense_0/kernel" in flax:
        return names | {
            "mlp.fc1.weight": flax["Mlp/Dense_0/kernel"].T,
            "mlp.fc1.bias": flax["Mlp/Dense_0/bias"],
            "mlp.fc2.weight": flax["Mlp/Dense_1/kernel"].T,
            "mlp.fc2.bias": flax["Mlp/Dense_1/bias"],
        }
    return names | {
        "mlp.router.scorer.weight": flax["Moe/Router/dense/kernel"].T,
        "mlp.experts.w1": flax["Moe/Mlp/Dense_0/kernel"],
        "mlp.experts.b1": flax["Moe/Mlp/Dense_0/bias"],
        "mlp.experts.w2": flax["Moe/Mlp/Dense_1/kernel"],
        "mlp.experts.b2": flax["Moe/Mlp/Dense_1/bias"],
    }


def loaded(case: "Golden") -> VisionTransformer:
    parameters = [name for name in case.arrays if name.startswith("params/")]
    flax = {name.removeprefix("params/"): case.input(name) for name in parameters}
    model = model_of(case.meta["config"]).to(case.dtype)
    model.load_state_dict(timm_names(flax, len(model.blocks)))
    return model


def images_of(case: "Golden") -> Tensor:
    return case.input("images").permute(0, 3, 1, 2)


def total_loss(case: "Golden", model: nn.Module) -> Tensor:
    logits = model(images_of(case))
    main = F.binary_cross_entropy_with_logits(logits, case.input("labels"), reduction="none").sum(1).mean()
    return main + sum(loss for layer in moe_layers(model).values() for loss in _losses(layer))


def _losses(layer: MoE) -> list[Tensor]:
    assert layer.routing is not None
    return list(layer.routing.losses.values())


@PRECISIONS
def test_outputs_of_blocks_and_model(golden: "ReadGolden", dtype: torch.dtype) -> None:
    case = golden("model_vmoe_token", dtype)
    model = loaded(case)
    outputs = {f"block_{i}": block for i, block in enumerate(model.blocks)} | {"encoded": model.norm}
    seen: dict[str, Tensor] = {}
    for name, module in outputs.items():
        module.register_forward_hook(lambda *args, name=name: seen.update({name: args[-1]}))
    case.check("logits", model(images_of(case)))
    for name, output in seen.items():
        case.check(name, output)
    assert len(seen) == 5
    case.check("features", model.forward_head(seen["encoded"], pre_logits=True))


@PRECISIONS
def test_routing(golden: "ReadGolden", dtype: torch.dtype) -> None:
    case = golden("model_vmoe_token", dtype)
    model = loaded(case)
    model(images_of(case))
    layers = moe_layers(model)
    assert list(layers) == ["blocks.1", "blocks.3"]
    auxiliary = []
    for name, layer in layers.items():
        assert layer.routing is not None
        case.check(f"router_{name[-1]}/dispatch_mask", layer.routing.plan.dense()[0])
        auxiliary += _losses(layer)
    # The published loss stands for each group, ours is their mean.
    tolerance = 2e-5 if dtype == torch.float32 else 1e-9
    expected = case.output("auxiliary_loss").mean()
    torch.testing.assert_close(sum(auxiliary), expected, atol=tolerance, rtol=tolerance)


def test_gradients(golden: "ReadGolden") -> None:
    case = golden("model_vmoe_token", torch.float64)
    model = loaded(case)
    loss = total_loss(case, model)
    case.check("total_loss", loss)
    loss.backward()
    start = "grads_f64/"
    stored = {n.removeprefix(start): case.output(n) for n in case.arrays if n.startswith(start)}
    expected = timm_names(stored, len(model.blocks))
    assert set(expected) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad,
            expected[name],
            atol=1e-9,
            rtol=1e-9,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_activation_checkpointing_changes_no_gradient(golden: "ReadGolden") -> None:
    case = golden("model_vmoe_token", torch.float64)
    plain, checkpointed = loaded(case), loaded(case)
    checkpointed.set_grad_checkpointing(True)
    for model in (plain, checkpointed):
        torch.manual_seed(1)
        total_loss(case, model.train()).backward()
    for (name, expected), parameter in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(
            parameter.grad, expected.grad, msg=lambda text, name=name: f"{name}: {text}"
        )
