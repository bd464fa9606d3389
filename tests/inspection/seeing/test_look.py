"""One pass over the test images of runs that were trained for it, and what their checkpoints tell."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from routerbench import experiment, records
from routerbench.compose import compose_sweep
from routerbench.identity import identity, run_id
from routerbench.inspection.measures.numbers import numbers_of
from routerbench.inspection.measures.stability import over_seeds, over_training
from routerbench.inspection.routing_of import routing_of
from routerbench.inspection.seeing.look import look
from routerbench.load import FinishedRun, open_run
from routerbench.moe.surgery import moe_layers
from routerbench.signals import Warned

TINY = (
    "data=digits",
    "augment=none",
    "epochs=1",
    "+model.arguments.depth=2",
    "placement=[0,1]",
    "batch_size=64",
    "+model.arguments.embed_dim=16",
    "+model.arguments.num_heads=2",
    "num_experts=4",
    "capacity_factor=0.5",
    "runtime.wandb=disabled",
    "runtime.workers=0",
    "runtime.threads=1",
    "runtime.device=cpu",
    "runtime.backend=bmm",
    "runtime.checkpoint_every_steps=10",
)


def trained(results: Path, *words: str) -> Path:
    config = compose_sweep((*TINY, f"runtime.results={results}", *words), None, False).configs[0]
    threads = torch.get_num_threads()
    try:
        console = Console(file=io.StringIO())
        done = experiment.run(config, command="", repeat="", console=console, title="", warned=Warned())
    finally:
        torch.set_num_threads(threads)
    assert done == "done"
    return records.run_folder(results, run_id(identity(config)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("token_choice"), "router=token_choice", "group=4")


@pytest.fixture
def run(folder: Path) -> FinishedRun:
    return open_run(folder, device="cpu")


def test_what_is_seen_is_what_is_routed(run: FinishedRun) -> None:
    seen = look(run)
    num_images = len(run.test.labels)
    np.testing.assert_array_equal(seen.labels, run.test.labels)
    assert (seen.predicted == seen.labels).mean() == pytest.approx(run.record["metrics"]["test/top1"])
    images, _ = next(run.batches())
    routed = routing_of(run.model, images)
    assert [layer.name for layer in seen.layers] == list(moe_layers(run.model)) == list(routed)
    for layer in seen.layers:
        one = routed[layer.name]
        assert (layer.grid, layer.num_prefix) == (one.grid, one.num_prefix)
        assert len(layer.expert) == num_images
        np.testing.assert_array_equal(layer.expert[: len(images)], one.expert)
        np.testing.assert_array_equal(layer.first[: len(images)], one.first)
        np.testing.assert_allclose(layer.gate[: len(images)], one.gate, rtol=1e-3)
        np.testing.assert_allclose(layer.share[: len(images)], one.share.sum(1), rtol=1e-5)
        np.testing.assert_array_equal(layer.dropped, layer.slots == 0)


def test_layers_as_a_whole(run: FinishedRun) -> None:
    for layer in look(run).layers:
        # One choice a token: nobody is served by two experts, and an expert's tokens are its slots.
        np.testing.assert_allclose(layer.together, np.diag(layer.share.sum(0)), rtol=1e-6)
        assert 0 < layer.influence.sum() <= (~layer.dropped).mean()
        for similarity in (layer.weight_similarity, layer.output_similarity):
            np.testing.assert_allclose(np.diag(similarity), 1, rtol=1e-5)
            np.testing.assert_allclose(similarity, similarity.T, rtol=1e-5)


def test_a_second_look_sees_the_same_and_leaves_nothing(run: FinishedRun) -> None:
    one, other = look(run), look(run)
    for layer, again in zip(one.layers, other.layers, strict=True):
        np.testing.assert_array_equal(layer.output_similarity, again.output_similarity)
    assert not any(module._forward_pre_hooks for module in run.model.modules())
    assert numbers_of(one, permutations=10) == numbers_of(other, permutations=10)


def test_every_evaluation_has_nearly_the_same_number(run: FinishedRun) -> None:
    numbers = numbers_of(look(run), permutations=50)
    for name in moe_layers(run.model):
        in_record = run.record["metrics"][f"routing/{name}/class_information"]
        assert numbers[f"{name}/class"] == pytest.approx(in_record, abs=2e-3)


def test_soft_slots(tmp_path: Path) -> None:
    run = open_run(trained(tmp_path, "router=soft"), device="cpu")
    for layer in look(run).layers:
        assert not layer.dropped.any()
        np.testing.assert_array_equal(layer.expert, layer.first)
        # The dispatch weights of each slot sum to 1 over tokens, the combine weights of a token over slots.
        of_images = layer.slots.astype(np.float64).sum(1)
        np.testing.assert_allclose(of_images, round(of_images[0]), rtol=1e-2)
        assert round(of_images[0]) % layer.num_experts == 0
        assert layer.influence.sum() == pytest.approx(1, abs=1e-4)


def test_a_dense_run_has_nothing_to_look_at(tmp_path: Path) -> None:
    dense = trained(tmp_path, "router=dense")
    with pytest.raises(ValueError, match=r"is of a dense model, which has no router to look at$"):
        look(open_run(dense, device="cpu"))


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same run in a folder that may be damaged."""
    return shutil.copytree(folder, tmp_path / folder.name)


def test_over_training(copied: Path) -> None:
    run = open_run(copied, device="cpu")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    seen = look(run)
    agreement = over_training(run, seen)
    assert list(agreement) == [10, 20]
    for layer in seen.layers:
        # Warm-up ends the run before it has gone far: the later, the more alike.
        assert 0.25 < agreement[10][layer.name] <= agreement[20][layer.name] < 1
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    shutil.rmtree(copied / "checkpoint")
    assert over_training(run, seen) == {}


def test_a_checkpoint_that_is_damaged_is_refused(copied: Path) -> None:
    run = open_run(copied, device="cpu")
    seen = look(run)
    file = next((copied / "checkpoint" / "step-000000010").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"step-000000010 is damaged: remove it$"):
        over_training(run, seen)


def test_seeds_of_a_run_with_itself(run: FinishedRun) -> None:
    seen = look(run)
    numbers = over_seeds([seen, seen])
    assert numbers["agreement"] == 1
    assert numbers["adjusted_information"] == pytest.approx(1)
