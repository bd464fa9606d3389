"""Trained weights at another resolution, with another head or capacity: taken over, or refused."""

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.testing import assert_close

import routerbench as rb
from routerbench import experiment, parts, records
from routerbench.build import build_backbone, sparsify
from routerbench.identity import identity, run_id
from routerbench.signals import Warned
from routerbench.weights import check_fit, head_prefixes, with_new_head, with_positions_of, write_weights

if TYPE_CHECKING:
    from tests.conftest import ReadGolden

SMALL = {"depth": 2, "embed_dim": 16, "num_heads": 2}


def vit(image_size: int, num_classes: int = 10, **arguments: Any) -> nn.Module:
    return build_backbone("pocket_vit", num_classes, image_size, **{**SMALL, **arguments})


def state(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


@pytest.mark.parametrize(("name", "image_size"), [("up", 48), ("down", 24)])
def test_the_published_zoom(name: str, image_size: int, golden: "ReadGolden") -> None:
    published = golden("vit_zoom", torch.float32)
    small = partial(vit, depth=1, embed_dim=6, num_heads=1)
    weights = state(small(32)) | {"pos_embed": published.input("source")}
    zoomed = with_positions_of(small(image_size), weights, "zoom")
    published.check(f"target_{name}", zoomed["pos_embed"])
    bicubic = with_positions_of(small(image_size), weights, "bicubic")
    assert bicubic["pos_embed"].shape == zoomed["pos_embed"].shape
    assert not torch.allclose(bicubic["pos_embed"], zoomed["pos_embed"], atol=1e-2)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, on timm's resizing
@pytest.mark.parametrize(
    ("name", "arguments", "sizes"),
    [
        ("pocket_vit", SMALL, (32, 48)),
        ("pocket_convnext", {}, (32, 48)),
        ("deit_tiny_distilled_patch16_224", SMALL, (224, 96)),
        ("deit3_small_patch16_224", SMALL, (224, 96)),
        ("beit_base_patch16_224", SMALL, (224, 96)),
        ("eva02_tiny_patch14_224", SMALL, (224, 112)),
        (
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1] * 4},
            (224, 96),
        ),
    ],
)
def test_positions_are_resized_as_timm_resizes_its_own(
    name: str, arguments: dict[str, Any], sizes: tuple[int, int]
) -> None:
    old, new = (partial(build_backbone, name, 5, size, **arguments) for size in sizes)
    weights = state(old())
    for key in weights:
        if "pos" in key and weights[key].is_floating_point():
            weights[key] = torch.randn_like(weights[key])
    overlay = {"state_dict": dict(weights), "num_classes": 5}
    with torch.device("meta"):
        empty = new()
    resized = with_positions_of(empty, weights, "bicubic")
    check_fit(empty, resized, source="run", name=name)
    by_timm = state(new(pretrained=True, pretrained_cfg_overlay=overlay))
    assert_close(resized, by_timm, rtol=0, atol=0)


def test_positions_of_the_same_grid_are_left_alone() -> None:
    weights = state(vit(32))
    assert with_positions_of(vit(32), weights, "bicubic") is weights


def test_zoom_is_for_the_models_that_timm_can_zoom() -> None:
    arguments = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4}
    large, small = (
        build_backbone("swin_tiny_patch4_window7_224", 2, size, **arguments) for size in (224, 96)
    )
    with pytest.raises(ValueError, match=r"^model\.resize=zoom is not for SwinTransformer: take bicubic$"):
        with_positions_of(small, state(large), "zoom")


def test_positions_with_and_without_a_class_token_do_not_fit() -> None:
    without = vit(48, class_token=False, global_pool="avg")
    weights = with_positions_of(without, state(vit(32)), "bicubic")
    with pytest.raises(ValueError, match=r": its pos_embed is of shape \(1, 17, 16\), and the model's of"):
        check_fit(without, weights, source="run", name="pocket_vit")


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("pocket_vit", ("head.",)),
        ("pocket_convnext", ("head.fc.",)),
        ("pocket_convnext_iso", ("head.",)),
        ("deit_tiny_distilled_patch16_224", ("head.", "head_dist.")),
        ("resnet10t", ("fc.",)),
    ],
)
def test_a_new_head_is_all_that_is_new(name: str, heads: tuple[str, ...]) -> None:
    old, fresh = build_backbone(name, 7, 32), build_backbone(name, 3, 32)
    assert head_prefixes(old) == heads
    weights = with_new_head(fresh, state(old))
    check_fit(fresh, weights, source="run", name=name)
    for key, value in weights.items():
        source = fresh if key.startswith(heads) else old
        assert torch.equal(value, source.state_dict()[key])
    assert any(key.startswith(heads) for key in weights)


def test_a_model_without_a_known_head_gets_no_new_one() -> None:
    with pytest.raises(ValueError, match=r"^model\.new_head=true: timm does not say which layer"):
        with_new_head(nn.Linear(2, 2), {})


WORDS = (
    "augment=none",
    "epochs=1",
    "num_experts=2",
    "runtime.wandb=disabled",
    "runtime.workers=0",
    "runtime.backend=bmm",
)
OF_MODEL = {
    "pocket_vit": [f"+model.arguments.{key}={value}" for key, value in SMALL.items()],
    "pocket_convnext": ["+model.arguments.depths=[1,1,1,1]", "+model.arguments.dims=[8,8,16,16]"],
}
Compose = Callable[..., DictConfig]


@pytest.fixture
def composed(tmp_path: Path, composed_once: Compose) -> Compose:
    """A function from words to a tiny configuration with its records in a folder of the test."""

    return partial(composed_once, tmp_path / "results", *WORDS)


@pytest.fixture
def three_classes(tmp_path: Path) -> Path:
    """A folder of 18 images to train on and 6 to test."""
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "images" / ("train" if number < 18 else "val") / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


def run(config: DictConfig) -> Path:
    """The folder of the run, once it is done."""
    parts.verify(config)
    console = Console(file=io.StringIO())
    status = experiment.run(
        config, command="a command", repeat="the same", console=console, title="run", warned=Warned()
    )
    assert status == "done"
    return records.run_folder(Path(config.runtime.results), run_id(identity(config)))


@pytest.mark.parametrize(
    ("name", "router"),
    [
        ("pocket_vit", "token_choice"),
        pytest.param("pocket_vit", "dense", marks=pytest.mark.slow),
        pytest.param("pocket_convnext", "token_choice", marks=pytest.mark.slow),
        pytest.param("pocket_convnext", "dense", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_fine_tuned_at_another_resolution_with_a_new_head_and_capacity(
    name: str, router: str, composed: Compose, three_classes: Path
) -> None:
    model = [f"model={name}", *OF_MODEL[name], f"router={router}"]
    before = run(composed(*model, "data=digits", "batch_size=360"))
    words = [*model, "data=folder", f"data.path={three_classes}", "batch_size=6", "optim.lr=1e-9"]
    words += [f"model.weights={before}", "data.image_size=48", "capacity_factor=1.5", "expert_init=null"]
    with pytest.raises(ValueError, match=r"\(3, 16\); model\.new_head=true starts a new one$"):
        run(composed(*words))
    after = run(composed(*words, "model.new_head=true"))
    record = records.read_record(after)
    assert record is not None
    assert record["config"]["model"]["resize"] == "bicubic"
    # At a step next to nothing all but positions and head is what it was.
    old, new = state(rb.load_run(before)), state(rb.load_run(after))
    assert old.keys() == new.keys()
    resized = {"pos_embed"} if name == "pocket_vit" else set()
    changed = {key for key in old if old[key].shape != new[key].shape}
    head = {key for key in old if key.startswith(head_prefixes(rb.load_run(after)))}
    assert changed == resized | head
    for key in old.keys() - changed:
        assert_close(new[key], old[key], atol=1e-5, rtol=0)
    if router == "token_choice":
        assert 1.5 <= record["cost"]["slots_per_token"] < 2  # rounded up


def load(config: DictConfig, num_classes: int = 10) -> dict[str, Tensor]:
    weights = parts.load_weights(config, num_classes)
    assert weights is not None
    return weights


@pytest.fixture
def moe_run(tmp_path: Path) -> Path:
    """A folder with the weights of a small MoE model."""
    write_weights(tmp_path, sparsify(vit(32), "token_choice", 2, [1]))
    return tmp_path


VIT = ("data=digits", *OF_MODEL["pocket_vit"])


def test_experts_and_routers_are_taken_over(moe_run: Path, composed: Compose) -> None:
    words = [*VIT, f"model.weights={moe_run}", "expert_init=null"]
    for router in ("token_choice", "expert_choice", "sinkhorn_token_choice"):  # with one kind of gate
        config = composed(*words, f"router={router}", "capacity_factor=2")
        parts.verify(config)
        weights = load(config)
        model, blocks = parts.start(config, 10, weights)
        assert blocks == [1]
        assert_close(state(model), weights, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["num_experts=4"],
            "with router=token_choice: its blocks.1.mlp.router.scorer.weight is of shape (2, 16), and the "
            "model's of (4, 16)",
        ),
        (["placement=[0,1]"], "with router=token_choice: it has no blocks.0.mlp.router.scorer.weight"),
        (["router=soft"], "with router=soft: it has no blocks.1.mlp.router.phi"),
        (["router=dense"], ": it has experts (blocks.1.mlp.experts.b1), so give the weights of a dense run"),
        (
            ["expert_mlp_ratio=2"],
            "with router=token_choice: its blocks.1.mlp.experts.w1 is of shape (2, 16, 64), and the model's "
            "of (2, 16, 32)",
        ),
    ],
)
def test_other_experts_and_routers_are_refused(
    words: list[str], problem: str, moe_run: Path, composed: Compose
) -> None:
    config = composed(*VIT, f"model.weights={moe_run}", "router=token_choice", "expert_init=null", *words)
    parts.verify(config)
    line = f"model.weights={moe_run} does not fit model.name=pocket_vit"
    line += problem if problem.startswith(":") else f" {problem}"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        load(config)


def test_soft_slots_hang_on_the_number_of_tokens_unless_it_is_given(
    tmp_path: Path, composed: Compose
) -> None:
    trained, _ = parts.start(composed(*VIT, "router=soft"), 10, None)
    trained(torch.zeros(1, 3, 32, 32))
    slots = trained.get_parameter("blocks.1.mlp.router.phi").shape[-1]
    write_weights(tmp_path, trained)
    words = [*VIT, f"model.weights={tmp_path}", "router=soft", "expert_init=null", "data.image_size=48"]
    with pytest.raises(ValueError, match=rf"router\.phi is of shape \(16, 2, {slots}\), and the model's of"):
        load(composed(*words))
    weights = load(composed(*words, f"router.slots_per_expert={slots}"))
    assert weights["pos_embed"].shape == (1, 37, 16)


def test_how_experts_start_is_said_by_weights_that_have_them(moe_run: Path, composed: Compose) -> None:
    def refused(config: DictConfig) -> str:
        parts.verify(config)
        with pytest.raises(ValueError, match=r"^expert_init=") as caught:
            load(config)
        return str(caught.value)

    words = [*VIT, "router=token_choice", f"model.weights={moe_run}"]
    assert refused(composed(*words, "expert_init=upcycle")) == (
        f"expert_init=upcycle with model.weights={moe_run}, which has experts (blocks.1.mlp.experts.b1): say "
        "expert_init=null, which takes them"
    )
    write_weights(moe_run, vit(32))
    assert refused(composed(*words, "expert_init=null")) == (
        f"expert_init=None with model.weights={moe_run}, which has no experts: say expert_init=upcycle, or "
        "independent"
    )


def test_a_new_head_is_that_of_the_seed(tmp_path: Path, composed: Compose) -> None:
    write_weights(tmp_path, vit(32, num_classes=7))
    words = [*VIT, "router=dense", "model.new_head=true"]
    first, again, other = (
        load(composed(*words, f"seed={seed}", f"model.weights={tmp_path}"), num_classes=3)
        for seed in (1, 1, 2)
    )
    fresh, _ = parts.start(composed(*words, "seed=1"), 3, None)
    assert torch.equal(first["head.weight"], again["head.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert first["head.weight"].shape == fresh.get_parameter("head.weight").shape


def test_pretrained_weights_get_a_new_head_for_as_many_classes(tmp_path: Path, composed: Compose) -> None:
    overlay = f"+model.arguments.pretrained_cfg_overlay={{file:{tmp_path}/timm.pth,classifier:head}}"
    source = state(vit(32))
    torch.save(source, tmp_path / "timm.pth")
    words = [*VIT, "router=dense", "model.weights=pretrained", overlay, "seed=1"]
    kept, new = load(composed(*words)), load(composed(*words, "model.new_head=true"))
    assert torch.equal(kept["head.weight"], source["head.weight"])
    assert not torch.equal(new["head.weight"], source["head.weight"])
    assert torch.equal(new["pos_embed"], source["pos_embed"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["model.resize=cubic"],
            "model.resize=cubic is not one of: bicubic, zoom (did you mean bicubic?)",
        ),
        (
            ["model.new_head=true"],
            "model.new_head=true means nothing without model.weights, for every head is new then",
        ),
        (
            ["model.resize=zoom", "model.weights=pretrained"],
            "model.resize=zoom is not for model.weights=pretrained, which timm resizes: take bicubic",
        ),
    ],
)
def test_settings_that_mean_nothing(words: list[str], text: str, composed: Compose) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parts.verify(composed("router=dense", *words))


def test_what_is_done_with_weights_is_no_part_of_a_run_without_them(composed: Compose) -> None:
    ids = [run_id(identity(composed(*words))) for words in ([], ["model.resize=zoom"])]
    assert ids[0] == ids[1]
    words = ["router=dense", "model.weights=a.pth"]
    settings = ([], ["model.resize=zoom"], ["model.new_head=true"])
    assert len({run_id(identity(composed(*words, *more))) for more in settings}) == 3
