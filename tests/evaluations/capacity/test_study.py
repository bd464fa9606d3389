"""A trained run at other capacities: which modes there are, what is found, what is drawn."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from routerbench.load import FinishedRun

Trained = Callable[..., "FinishedRun"]


@pytest.fixture
def copied(tmp_path: Path) -> "Callable[[FinishedRun], FinishedRun]":
    """A function from a run to one with a folder of this test."""

    def copy(run: "FinishedRun") -> "FinishedRun":
        folder = tmp_path / "runs" / run.folder.name
        if not folder.exists():
            shutil.copytree(run.folder, folder)
        return replace(run, folder=folder)

    return copy


def asked(**words: Any) -> Any:
    from routerbench.evaluations.measurement import Asked

    return Asked(**words)


def names(run: "FinishedRun", **words: Any) -> list[str]:
    from routerbench.evaluations.capacity.grid import modes_of

    return [mode.name for mode in modes_of(run, asked(**words))]


def test_the_modes_of_a_router_that_chooses_by_token(trained: Trained) -> None:
    found = names(trained("router=token_choice"))
    assert found[:2] == ["dropless=true", "trained"]
    # Seven capacity factors, k of 1 and 2, with batch priority and without, and dropless for each k.
    assert len(found) == len(set(found)) == 7 * 2 * 2 + 2
    assert {"capacity_factor=0.25 batch_priority=true", "top_k=2", "dropless=true top_k=2"} < set(found)
    # What the run has anyway is no part of a name.
    assert not any("capacity_factor=1.0" in name or "top_k=1" in name for name in found)


def test_the_modes_of_other_routers(trained: Trained) -> None:
    factors = ["capacity_factor=0.1", "capacity_factor=0.25", "capacity_factor=0.5", "capacity_factor=0.75"]
    many = [*factors, "capacity_factor=1.5", "capacity_factor=2.0"]
    assert names(trained("router=expert_choice")) == ["dropless=true", "trained", *many]
    assert names(trained("router=soft")) == names(trained("router=dense")) == ["trained"]


def test_what_is_asked_for_comes_with_the_run_itself_and_the_reference(trained: Trained) -> None:
    run = trained("router=token_choice")
    words = {"capacity_factors": (0.5, "dropless", 1.0), "top_ks": (1,), "priorities": (True,)}
    own = ["capacity_factor=0.5 batch_priority=true", "batch_priority=true"]
    assert names(run, **words) == ["dropless=true", "trained", *own]


def test_a_run_that_is_dropless_is_its_own_reference(trained: Trained) -> None:
    found = names(trained("router=token_choice", "router.dropless=true"), capacity_factors=(1.0, "dropless"))
    assert found[0] == "trained"
    # Its capacity factor is that of training: in evaluation it is another mode.
    assert "capacity_factor=1.0" in found
    assert not any("dropless" in name for name in found)


@pytest.mark.parametrize(
    ("router", "words", "message"),
    [
        (
            "soft",
            {"capacity_factors": (0.5,)},
            "capacity_factor=0.5 cannot be changed in a trained Soft",
        ),
        (
            "expert_choice",
            {"top_ks": (2,)},
            "top_k=2 cannot be changed in a trained ExpertChoice: only ",
        ),
        (
            "expert_choice",
            {"priorities": (True,)},
            "batch_priority=true cannot be changed in a trained ExpertChoice",
        ),
        ("token_choice", {"top_ks": (5,)}, "top_k=5 is more than num_experts=4: give at most that"),
        (
            "dense",
            {"capacity_factors": ("dropless",)},
            "dropless=true cannot be changed in a trained dense run",
        ),
    ],
)
def test_a_mode_that_is_not_there_is_refused_before_anything(
    trained: Trained, router: str, words: dict[str, Any], message: str
) -> None:
    from routerbench.evaluations.capacity.study import measurements

    with pytest.raises(ValueError, match=f"^{message}"):
        next(measurements(trained(f"router={router}"), asked(**words)))


def test_what_is_found(trained: Trained, copied: Any) -> None:
    from routerbench.evaluations.run import evaluate

    run = copied(trained("router=token_choice"))
    copied(trained("router=dense"))
    words = asked(capacity_factors=(0.1, "dropless"), top_ks=(1,))
    found = {entry.mode: entry.result for entry in evaluate(run, ["capacity"], words, again=False)}
    metrics, told = run.record["metrics"], found["trained"]
    assert (told["top1"], told["loss"]) == (metrics["test/top1"], pytest.approx(metrics["test/loss"]))
    assert told["dropped_fraction"] == pytest.approx(metrics["routing/dropped_fraction"])
    assert told["executed_flops_per_image"] < run.record["cost"]["flops_per_image_eval"]
    assert {"ece", "brier", "balanced", "top5", "slots_per_image", "images_per_second"} <= told.keys()
    assert found["dropless=true"]["dropped_fraction"] == 0.0
    assert found["dropless=true"]["slots_per_image"] == 2 * 17
    assert found["dropless=true"]["points_to_dropless"] == 0.0
    few = found["capacity_factor=0.1"]
    assert few["slots_per_image"] <= 2 * 4  # two layers of four experts, with a slot each
    lost = 100 * (few["top1"] - found["dropless=true"]["top1"])
    assert few["points_to_dropless"] == pytest.approx(lost)
    assert few["points_to_dropless_low"] < lost < few["points_to_dropless_high"]
    with (run.folder / "eval" / "capacity.csv").open() as file:
        rows = {row["mode"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {*found, "dense twin"}
    assert float(rows["capacity_factor=0.1"]["top1"]) == few["top1"]
    for name in ("capacity.svg", "reliability.svg", "reliability.csv"):
        assert (run.folder / "eval" / name).stat().st_size > 1000


def test_the_reference_is_seen_again_where_its_images_are_gone(trained: Trained, copied: Any) -> None:
    from routerbench.evaluations.run import evaluate

    run = copied(trained("router=token_choice"))
    list(evaluate(run, ["capacity"], asked(capacity_factors=("dropless",), top_ks=(1,)), again=False))
    path = run.folder / "eval" / "capacity" / "dropless=true.npz"
    with np.load(path) as file:
        before = dict(file)
    path.write_bytes(b"damaged")
    words = asked(capacity_factors=(0.5,), top_ks=(1,), priorities=(False,))
    new = [entry.mode for entry in evaluate(run, ["capacity"], words, again=False) if entry.measured]
    assert new == ["capacity_factor=0.5"]
    with np.load(path) as file:
        assert np.array_equal(file["correct"], before["correct"])


def test_a_name_that_is_no_modes_leads_to_no_file(trained: Trained, copied: Any) -> None:
    from routerbench.evaluations.capacity.files import draw
    from routerbench.evaluations.run import evaluate

    run = copied(trained("router=token_choice"))
    list(evaluate(run, ["capacity"], asked(capacity_factors=("dropless",), top_ks=(1,)), again=False))
    record = json.loads((run.folder / "record.json").read_text())
    modes = record["evaluations"]["capacity"]
    modes["../outside"] = modes["trained"]
    (run.folder / "record.json").write_text(json.dumps(record))
    shutil.copy(run.folder / "eval" / "capacity" / "trained.npz", run.folder / "eval" / "outside.npz")
    draw(run)
    with (run.folder / "eval" / "reliability.csv").open() as file:
        assert {row["mode"] for row in csv.DictReader(file)} == {"trained", "dropless=true"}


def test_what_is_kept_of_images_is_of_the_test_set_or_damaged(tmp_path: Path) -> None:
    from routerbench.evaluations.seeing.observed import images_path, kept_images

    path = images_path(tmp_path, "trained")
    path.parent.mkdir(parents=True)
    right, sure = np.array([True, False, True]), np.array([0.5, 0.25, 1.0], np.float32)
    np.savez_compressed(path, correct=right, confidence=sure)
    kept = kept_images(tmp_path, "trained", 3)
    assert kept is not None
    assert [one.tolist() for one in kept] == [right.tolist(), sure.tolist()]
    assert kept_images(tmp_path, "trained", 2) is None
    np.savez_compressed(path, correct=right, confidence=sure.astype(np.float64))
    assert kept_images(tmp_path, "trained", 3) is None
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff" * 20 + whole[80:])
    assert kept_images(tmp_path, "trained", 3) is None


def test_a_dense_run_is_measured_as_it_is(trained: Trained, copied: Any) -> None:
    from routerbench.evaluations.run import evaluate

    run = copied(trained("router=dense"))
    (entry,) = evaluate(run, ["capacity", "compute"], asked(), again=False)
    assert entry.mode == "trained"
    assert entry.result["top1"] == run.record["metrics"]["test/top1"]
    assert entry.result["executed_flops_per_image"] == run.record["cost"]["flops_per_image_eval"]
    assert "points_to_dropless" not in entry.result


def test_a_twin_of_a_version_that_tells_less_is_not_drawn(trained: Trained, copied: Any) -> None:
    from routerbench.evaluations.capacity.twin import dense_twin

    run, dense = copied(trained("router=token_choice")), copied(trained("router=dense"))
    assert dense_twin(run) == dense.record
    record = json.loads((dense.folder / "record.json").read_text())
    del record["cost"]["flops_per_image_eval"]
    (dense.folder / "record.json").write_text(json.dumps(record))
    assert dense_twin(run) is None


def test_more_choices_than_there_are_colours_are_drawn() -> None:
    from routerbench.evaluations.figures.capacity import capacity_picture

    told = {"top1": 0.5, "executed_flops_per_image": 1e9, "capacity_factor": 1.0, "dropless": False}
    modes = {
        f"top_k={top_k}": {**told, "top_k": top_k, "batch_priority": False, "group": "image"}
        for top_k in range(1, 10)
    }
    (axes,) = capacity_picture(modes, None).figure.axes
    labels = axes.get_legend_handles_labels()[1]
    assert [label for label in labels if label.startswith("top_k")] == [
        f"top_k {top_k}, token order" for top_k in range(1, 10)
    ]
