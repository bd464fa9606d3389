"""Memory and traffic on paper, against formulas written out by hand."""

import io
import shutil
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig
from rich.console import Console

from routerbench import cli
from routerbench.compose import compose_sweep
from routerbench.footprint import Layout, anatomy, footprint
from routerbench.footprint_table import layouts, show

DOCS = Path(__file__).parents[1] / "docs" / "scaling.md"
D, H, S, E = 16, 64, 17, 4  # width, hidden width, tokens, experts
EXPERTS = E * (2 * D * H + H + D)
TINY = (
    "router=hash",
    "placement=[1]",
    f"num_experts={E}",
    "batch_size=64",
    "+model.arguments.depth=2",
    f"+model.arguments.embed_dim={D}",
    "+model.arguments.num_heads=2",
)


def composed(*words: str) -> DictConfig:
    return compose_sweep([*TINY, *words], None, False).configs[0]


def test_the_anatomy_of_a_small_model() -> None:
    parts = anatomy(composed())
    dense = parts.costs.params_total - EXPERTS
    assert (parts.params_experts, parts.params_dense) == (EXPERTS, dense)
    assert parts.optimizer_bytes == pytest.approx(8, rel=1e-2)  # and its count of steps
    # Each of 4 experts has 5 seats, as 17 tokens over 4 are 4.25.
    assert parts.slots_per_image == E * 5 * D
    block = 4 * D * D + 4 * D + 4 * D  # attention with its biases, and two norms
    assert parts.params_block == block + EXPERTS


def test_a_router_that_takes_its_shape_from_the_first_images() -> None:
    parts = anatomy(composed("router=soft"))
    assert parts.slots_per_image == E * 5 * D
    # Beside the experts there are phi, of 5 slots each, and its scale.
    assert parts.params_block == anatomy(composed()).params_block + D * E * 5 + 1


def test_activations_of_an_image_do_not_hang_on_the_group_and_are_halved_in_low_precision() -> None:
    kept = anatomy(composed("router=dense")).kept_per_image
    assert anatomy(composed("router=dense", "precision=bf16")).kept_per_image == kept / 2
    # Of a block: both norms' inputs and statistics, queries, keys, values, output, the MLP's inputs.
    assert 2 * 4 * S * (6 * D + 2 * H) < kept < 2 * 4 * S * (12 * D + 3 * H) + 4 * 3 * 32 * 32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_process_sends_nothing(precision: str) -> None:
    config = composed(f"precision={precision}")
    parts = anatomy(config)
    found = footprint(parts, Layout(1, 1, 1), config)
    total = parts.costs.params_total
    assert (found.parameters, found.gradients) == (4 * total, 4 * total)
    assert found.copies == (2 * total if precision == "bf16" else 0)
    assert found.activations == 64 * parts.kept_per_image
    assert found.all_to_all == found.all_reduce == found.all_gather == 0


def test_experts_that_are_shared_out() -> None:
    config = composed("optim.accumulation_steps=2")
    parts = anatomy(config)
    found = footprint(parts, Layout(data=2, shard=1, expert=4), config)
    dense = parts.params_dense
    assert found.parameters == 4 * (dense + EXPERTS / 4)
    # 8 images of a GPU, 4 at once; slots go there and back, forward and backward, three of four to others.
    assert found.activations == 4 * parts.kept_per_image
    assert found.all_to_all == 4 * 3 / 4 * 4 * (8 * E * 5 * D)
    assert found.all_reduce == pytest.approx(4 * (2 * 7 / 8 * dense + 2 * 1 / 2 * EXPERTS / 4))
    assert found.all_gather == 0


@pytest.mark.parametrize(("shard", "precision"), [(2, "fp32"), (4, "bf16")])
def test_parameters_that_are_shared_out(shard: int, precision: str) -> None:
    config = composed("optim.accumulation_steps=2", f"precision={precision}")
    parts = anatomy(config)
    found = footprint(parts, Layout(data=2, shard=shard, expert=1), config)
    total = parts.costs.params_total
    assert found.parameters == 4 * total / shard
    assert found.gradients == 4 * total  # which are cut with the last part
    assert found.copies == 4 * parts.params_block + (2 * total if precision == "bf16" else 0)
    assert found.all_gather == pytest.approx(4 * (shard - 1) / shard * total * 5)
    assert found.all_reduce == pytest.approx(4 * 2 * 1 / 2 * total / shard)


def test_layouts_of_many_gpus_are_those_that_the_configuration_allows() -> None:
    found = [str(layout) for layout in layouts(composed(), 8)]
    assert found == [
        "data 8",
        "data 4 x expert 2",
        "data 2 x expert 4",  # 8 shares of 4 experts there are not
        "data 4 x shard 2",
        "data 2 x shard 4",
        "shard 8",
    ]
    assert layouts(composed("parallel.expert=2"), None) == [Layout(1, 1, 2)]
    with pytest.raises(ValueError, match=r"^gpus=7: no layout of so many divides batch_size=64$"):
        layouts(composed(), 7)


@pytest.mark.parametrize(
    ("words", "num_gpus", "text"),
    [
        (["model.name=zzz"], None, "model.name=zzz is not a timm model"),
        (["modell=vit"], None, "modell=vit is not a setting (did you mean model?)"),
        (
            ["parallel.expert=3", "batch_size=48"],
            None,
            "parallel.expert=3 does not divide num_experts=8: give a divisor",
        ),
        (["batch_size=48"], 0, "gpus=0 must be a whole number of at least 1"),
    ],
)
def test_what_has_no_footprint_is_refused_in_one_line(
    words: list[str],
    num_gpus: int | None,
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        ["routerbench", "costs", *(["--gpus", str(num_gpus)] if num_gpus is not None else []), *words],
    )
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"routerbench: {text}")
    assert shown.err.count("\n") == 1


def test_the_tables_of_the_page_are_those_of_the_command(tmp_path: Path) -> None:
    pasted = Path(shutil.copy(DOCS, tmp_path))
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("    routerbench costs"))
    words = " ".join(lines[first : first + 2]).replace("\\", "").split()[4:]
    shown = io.StringIO()
    show(compose_sweep(words, None, True).configs, 64, pasted, Console(file=shown, width=120))
    assert pasted.read_text(encoding="utf-8") == DOCS.read_text(encoding="utf-8")
    assert "data 8 x expert 8" in shown.getvalue()
