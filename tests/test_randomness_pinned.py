"""What is drawn, in a few integers: a release that draws otherwise has other numbers under the same run ids.

Floats are pinned in units that leave out their last bits. Where one of these fails, every run is to be
trained again under another id: its new numbers are not to be written down without a word.
"""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from rich.console import Console
from timm.data.mixup import Mixup
from timm.layers.drop import DropPath
from timm.utils.random import random_seed
from torch import Tensor, nn

from routerbench import experiment
from routerbench.build import build_router
from routerbench.compose import compose_sweep
from routerbench.config import conf_dir
from routerbench.data import randomness
from routerbench.data.loaders import Decoding, Loader, train_loader
from routerbench.data.orders import ALONE, Share, Shuffled
from routerbench.data.pixels import CentreCrop
from routerbench.data.randomness import generator, mix, seeded
from routerbench.data.sources import Arrays, Dataset, folder
from routerbench.data.splits import chosen
from routerbench.fewshot import Probe
from routerbench.inspection.measures.specialisation import moved
from routerbench.linear_probe import LinearProbe
from routerbench.mixing import NeighbourMix
from routerbench.moe.experts import Experts
from routerbench.moe.plan import SoftPlan
from routerbench.moe.surgery import take_shape
from routerbench.parts import start
from routerbench.report import null_check
from routerbench.report.across import resampled
from routerbench.signals import Warned
from routerbench.stats.bootstrap import drawn_seeds
from routerbench.stats.null import relabelled

SEED = 3  # unlike the epochs here, so that the two cannot stand for each other
AUGMENTS_OF_FILES = sorted(
    path.stem
    for path in (conf_dir() / "augment").glob("*.yaml")
    if path.stem not in ("crop_flip", "dihedral", "none")
)
VIT = "+model.arguments={depth:2,embed_dim:16,num_heads:2}"
CONVNEXT = "+model.arguments={depths:[1,1,1,1],dims:[8,8,8,8]}"
TINY = (
    "data=digits",
    "num_experts=4",
    f"seed={SEED}",
    "runtime.wandb=disabled",
    "runtime.device=cpu",
    "runtime.threads=1",
    "runtime.backend=loop",
)
# torch draws zeros and ones by MKL, where it has that.
BY_MKL = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch is without MKL")


def in_units(values: Tensor, per_one: int) -> list[int]:
    """The values in units of `1 / per_one`."""
    return values.detach().double().mul(per_one).round().long().flatten().tolist()


def loader(dataset: Dataset, augment: str, batch_size: int, image_size: int, **changes: Any) -> Loader:
    """Training batches under conf/augment/<augment>.yaml, whose values are those of the pixels, 0 to 255."""
    described = OmegaConf.merge(OmegaConf.load(conf_dir() / "augment" / f"{augment}.yaml"), changes)
    return train_loader(
        dataset,
        augment=instantiate(described),
        seed=SEED,
        batch_size=batch_size,
        image_size=image_size,
        mean=(0.0, 0.0, 0.0),
        std=(1 / 255, 1 / 255, 1 / 255),
        decoding=Decoding(0, 1.0, skip_corrupt=False, centre_crop=CentreCrop(0.875, "bicubic")),
        share=ALONE,
    )


def by_label(batches: Loader, epoch: int) -> Iterator[Tensor]:
    """The images of an epoch by label and, of one label, as they come."""
    images, labels = (torch.cat(parts) for parts in zip(*batches.epoch(epoch), strict=True))
    yield from images[labels.argsort(stable=True)]


def test_a_key_of_several_numbers() -> None:
    purposes = ("ORDER", "AUGMENT", "WORKERS", "MIX", "ERASE", "HOLD_OUT")
    assert [getattr(randomness, name) for name in purposes] == [1, 2, 3, 4, 5, 6]
    assert mix(SEED, 1, 2) == 11679836372483601169
    assert torch.randint(1000, (4,), generator=generator(SEED, 1, 2)).tolist() == [915, 701, 320, 484]
    with seeded(SEED, 1, 2):
        drawn = random.randrange(1000), int(np.random.randint(1000)), int(torch.randint(1000, ()))
    assert drawn == (781, 35, 915)


@pytest.mark.parametrize(
    ("share", "num_repeats", "epochs"),
    [
        (ALONE, 1, [[[5, 7, 9, 4], [0, 1, 6, 8]], [[7, 1, 0, 2], [8, 9, 3, 4]]]),
        (ALONE, 3, [[[5, 7, 15, 17], [9, 4, 19, 14]], [[7, 1, 17, 11], [0, 2, 10, 12]]]),
        (Share(1, 2, 2), 1, [[[7, 4], [1, 8]], [[1, 2], [9, 4]]]),
        (Share(1, 2, 2), 3, [[[7, 17], [4, 14]], [[1, 11], [2, 12]]]),
    ],
    ids=str,
)
def test_the_order_of_training(share: Share, num_repeats: int, epochs: list[list[list[int]]]) -> None:
    order = Shuffled(10, 4, num_repeats, SEED, share)
    assert [[batch.tolist() for batch in order.batches(epoch, 0)] for epoch in (0, 1)] == epochs


def test_what_stands_in_for_a_corrupt_image() -> None:
    assert Shuffled(10, 4, 1, SEED, ALONE).spares(1, 0) == [2, 8, 9, 3, 4, 5, 6, 7, 1]


def test_what_is_held_out() -> None:
    assert chosen(range(3), 10).tolist() == [5, 8, 9]


@pytest.fixture(scope="module")
def places() -> Arrays:
    """Three images of 8 x 8, alike but for their label: each pixel is its place, row by row."""
    return Arrays(torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(3, 3, 1, 1), torch.arange(3))


@pytest.mark.parametrize(
    ("augment", "num_repeats", "epochs"),
    [
        (
            "crop_flip",
            1,
            [[[17, 22, 41], [35, 36, 27], [0, 7, 56]], [[20, 19, 44], [12, 11, 52], [36, 35, 28]]],
        ),
        (
            "dihedral",
            1,
            [[[17, 41, 22], [35, 36, 27], [56, 63, 0]], [[20, 19, 44], [12, 52, 11], [36, 28, 35]]],
        ),
        (
            "dihedral",
            3,
            [[[35, 36, 27], [37, 29, 34], [36, 28, 35]], [[36, 28, 35], [62, 57, 6], [43, 19, 44]]],
        ),
    ],
)
def test_the_augmentation_of_arrays(
    places: Arrays, augment: str, num_repeats: int, epochs: list[list[list[int]]]
) -> None:
    """By epoch and image, which pixels its upper corners and the lower left show."""
    batches = loader(places, augment, 3, 8, num_repeats=num_repeats)
    corners = [
        [in_units(image[0, [0, 0, 7], [0, 7, 0]], 1) for image in by_label(batches, epoch)]
        for epoch in (0, 1)
    ]
    assert corners == epochs


@pytest.mark.parametrize(
    ("mode", "fill"),
    [("const", [0, 0, 0]), ("rand", [102, -142, -156]), ("pixel", [-171, -81, 65])],
)
def test_what_is_erased_of_arrays(places: Arrays, mode: str, fill: list[int]) -> None:
    """By epoch and image, the first and the last pixel that is erased; the first one's colour once."""
    white = Arrays(torch.full_like(places.images, 255), places.labels)
    batches = loader(white, "crop_flip", 3, 8, random_erasing=0.7, random_erasing_mode=mode)
    images = [list(by_label(batches, epoch)) for epoch in (0, 1)]
    boxes = [
        [(image[0] != 255).nonzero()[[0, -1]].tolist() if image.ne(255).any() else [] for image in of_epoch]
        for of_epoch in images
    ]
    assert boxes == [[[[3, 4], [4, 7]], [], []], [[[3, 2], [6, 2]], [[3, 3], [4, 6]], []]]
    (row, column), _ = boxes[0][0]
    assert in_units(images[0][0][:, row, column], 100) == fill


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three images of 40 x 30, alike but for their label, in which each place has its colour."""
    root = tmp_path_factory.mktemp("files")
    rows, columns = np.mgrid[:30, :40]
    colours = np.stack([6 * columns, 8 * rows, 3 * (rows + columns)], axis=-1).astype(np.uint8)
    for part in ("train", "val"):
        for label in "abc":
            path = root / part / label / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(colours).save(path)
    return folder(str(root), "train", None, None).train


OF_FILES = {
    "convnext": [
        [59, 127, 90],
        [127, 114, 117],
        [72, 127, 99],
        [141, 176, 168],
        [111, 122, 113],
        [129, 98, 146],
    ],
    "deit3": [[139, 106, 113], [59, 120, 72], [54, 84, 71], [49, 71, 72], [111, 111, 111], [145, 145, 145]],
    "imagenet": [
        [59, 127, 90],
        [127, 114, 117],
        [72, 127, 99],
        [141, 176, 168],
        [111, 122, 113],
        [129, 98, 146],
    ],
    "three_augment": [
        [39, 85, 53],
        [112, 102, 98],
        [128, 77, 143],
        [107, 63, 101],
        [101, 101, 101],
        [56, 71, 75],
    ],
    "trivial": [[44, 109, 61], [0, 0, 0], [148, 92, 173], [0, 0, 0], [62, 119, 76], [46, 118, 67]],
    "vmoe": [[58, 127, 90], [210, 122, 143], [32, 16, 24], [111, 76, 84], [75, 124, 84], [48, 116, 68]],
}


@pytest.mark.parametrize("augment", AUGMENTS_OF_FILES)
def test_the_augmentation_of_files(files: Dataset, augment: str) -> None:
    """By epoch and image, the mean of each colour in the left half; Pillow may round otherwise."""
    batches = loader(files, augment, 3, 16)
    halves = [
        in_units(image[..., :8].mean((1, 2)), 1) for epoch in (0, 1) for image in by_label(batches, epoch)
    ]
    assert halves == [pytest.approx(half, abs=1) for half in OF_FILES.get(augment, [])]


@pytest.mark.parametrize(
    ("mixup_alpha", "cutmix_alpha", "steps"),
    [
        (0.8, 0.0, [[495], [657], [73], [21], [987]]),
        (
            0.0,
            1.0,
            [[750, 6, 7, 10, 11], [750, 5, 6, 9, 10], [750, 2, 3, 6, 7], [625, 4, 5, 8, 9, 12, 13], [1000]],
        ),
        (0.8, 1.0, [[875, 0, 1], [438, 1, 2, 3, 5, 6, 7, 9, 10, 11], [864], [938, 12], [64]]),
    ],
)
def test_how_a_batch_is_mixed(mixup_alpha: float, cutmix_alpha: float, steps: list[list[int]]) -> None:
    """By step, what an image keeps of its label, in thousandths, and its pixels that are another's."""
    draw = Mixup(mixup_alpha, cutmix_alpha, prob=0.9, switch_prob=0.5, label_smoothing=0.0, num_classes=2)
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    found = []
    for number in range(5):
        mixed, targets = NeighbourMix(draw, SEED, None)(images.clone(), torch.tensor([0, 1]), number)
        found.append(
            [*in_units(targets[0, 0], 1000), *(mixed[0].flatten() == 1).nonzero().flatten().tolist()]
        )
    assert found == steps


OF_VIT = {"patch_embed.proj.weight": 487, "mlp.fc1.weight": -43, "mlp.fc2.weight": 253, "head.weight": -46}
OF_TOKEN_CHOICE = OF_VIT | {"router.scorer.weight": 3113}
SHARED = {"mlp.experts.w1": -10, "mlp.experts.w2": 221}
FIRST = {
    f"router=token_choice {VIT}": OF_TOKEN_CHOICE | SHARED,
    f"router=token_choice expert_init=independent {VIT}": OF_TOKEN_CHOICE
    | {"mlp.experts.w1": 25, "mlp.experts.w2": -102},
    f"router=token_choice expert_mlp_ratio=2 {VIT}": OF_TOKEN_CHOICE
    | {"mlp.experts.w1": -298, "mlp.experts.w2": -217},
    f"router=token_choice router.scorer=cosine {VIT}": OF_VIT
    | {"router.scorer.projection": -3045, "router.scorer.codes": -2819}
    | SHARED,
    f"router=soft {VIT}": OF_VIT | {"mlp.router.phi": -1699} | SHARED,
    f"router=soft placement=[3] model=pocket_convnext {CONVNEXT}": {
        "stem.0.weight": -14,
        "mlp.fc1.weight": 145,
        "mlp.fc2.weight": -344,
        "mlp.router.phi": 4107,
        "mlp.experts.w1": -27,
        "mlp.experts.w2": 341,
        "head.fc.weight": -372,
    },
}


@pytest.mark.parametrize("words", FIRST)
def test_first_weights(words: str) -> None:
    """By its last names, the last weight of matrices that are drawn, in ten thousandths."""
    config = compose_sweep([*TINY, *words.split()], None, False).configs[0]
    random_seed(SEED)
    model, _ = start(config, 10, None)
    take_shape(model, (32, 32))
    last = {
        ".".join(name.split(".")[-3:]): in_units(parameter.flatten()[-1], 10_000)[0]
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and (".mlp." in name or name.startswith(("patch_embed", "stem", "head")))
    }
    assert {name: number for name, number in last.items() if number} == FIRST[words]


def test_the_noise_of_routers() -> None:
    """Of tokens that are all zero: how far it moves the logits of two experts, or of two slots, apart."""
    tokens = torch.zeros(1, 8, 4)
    sparse = build_router("token_choice", 4, 2, noise_std=2.0)
    torch.manual_seed(SEED)
    gates = sparse(tokens).plan.gates[0]
    assert in_units((gates[:, 0] / gates[:, 1]).log(), 1000) == [-437, -854, 952, 3217, 254, 471, 709, 158]
    soft = build_router("soft", 4, 2, noise_std=1.0, slots_per_expert=2)
    torch.manual_seed(SEED)
    plan = soft(tokens).plan
    assert isinstance(plan, SoftPlan)
    combine = plan.combine_weight[0].flatten(1)
    apart = [437, -952, -254, -709, 670, -524, 1693, -539]
    assert in_units((combine[:, 1] / combine[:, 0]).log(), 1000) == apart


def test_the_experts_of_positions() -> None:
    torch.manual_seed(SEED)
    drawn: Any = build_router("random", 4, 4, top_k=2)
    hashed: Any = build_router("hash", 4, 4, top_k=2)
    assert drawn.seed == 303761048
    assert drawn.choose(6, torch.device("cpu")).tolist() == [[0, 2], [2, 1], [3, 0], [2, 0], [2, 3], [1, 2]]
    assert hashed.choose(6, torch.device("cpu")).tolist() == [[0, 1], [1, 2], [2, 3], [3, 0], [0, 1], [1, 2]]


@BY_MKL
def test_what_is_dropped() -> None:
    # All weights are 1: what is left of 4 hidden features is doubled, and so are outputs that are left.
    experts = Experts(2, 4, 4, nn.Identity, dropout=0.5, parameters=("w1", "w2"))
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.fill_(1.0)
    torch.manual_seed(SEED)
    hidden_left = in_units(experts(torch.ones(2, 2, 4)) / 16, 1)
    assert hidden_left == [3, 0, 0, 3, 0, 0, 2, 2, 2, 2, 2, 0, 0, 0, 0, 3]
    assert in_units(DropPath(0.5)(torch.ones(12, 1)), 1) == [2, 2, 2, 0, 2, 2, 2, 0, 0, 2, 2, 0]


def test_images_of_few_shots_and_of_linear_probes() -> None:
    labels = np.arange(12) % 2
    probe = Probe(shots=[1, 3], l2=[1.0], num_draws=2, seed=SEED, select="held_out")
    assert [draw.tolist() for draw in probe.draws(labels)] == [
        [[4, 10, 8], [7, 11, 1]],
        [[2, 4, 0], [1, 9, 7]],
    ]
    to_fit, held_out = LinearProbe(l2=[1.0], held_out=0.3, seed=SEED).split(10)
    assert (to_fit.tolist(), held_out.tolist()) == ([1, 2, 3, 4, 5, 7, 8], [0, 6, 9])


def test_what_reports_and_inspections_resample() -> None:
    assert (resampled.RANDOM_SEED, null_check.SEED) == (20211, 0)
    rng = np.random.default_rng(SEED)
    assert [drawn.tolist() for drawn in drawn_seeds([3, 4], ["a", "b"], 2, rng)] == [
        [[0, 0], [1, 0]],
        [[1, 0, 2], [1, 2, 1]],
    ]
    assert relabelled(np.arange(6.0).reshape(3, 2), 2, rng).tolist() == [
        [[2, 5], [0, 3], [4, 1]],
        [[0, 3], [2, 5], [4, 1]],
    ]
    values = np.arange(12, dtype=np.int32).reshape(1, 12)
    assert [each.tolist() for each in moved(values, (3, 4), 2, rng)] == [
        [[6, 7, 4, 5, 10, 11, 8, 9, 2, 3, 0, 1]],
        [[9, 10, 11, 8, 1, 2, 3, 0, 5, 6, 7, 4]],
    ]


def test_a_run_of_two_steps(tmp_path: Path) -> None:
    """All of it together, in thousandths: a run's order, augmentation, mixing, first weights and noise."""
    of_model = [VIT, "router=token_choice", "epochs=1"]
    of_batches = [
        "augment=dihedral",
        "augment.random_erasing=0.5",
        "mix.mixup_alpha=0.8",
        "data.train_split='train[:128]'",
        "data.minival_split='train[1400:]'",
    ]
    of_rows = ["runtime.log_every_steps=1", f"runtime.results={tmp_path}"]
    config = compose_sweep([*TINY, *of_model, *of_batches, *of_rows], None, False).configs[0]
    threads = torch.get_num_threads()
    console = Console(file=io.StringIO())
    experiment.run(config, command="", repeat="", console=console, title="", warned=Warned())
    torch.set_num_threads(threads)
    (path,) = tmp_path.glob("runs/*/metrics.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    per_one = {"task_loss": 1000, "importance_loss": 100_000, "load_loss": 100_000, "grad_norm": 1000}
    found = [[round(unit * row[f"train/{name}"]) for name, unit in per_one.items()] for row in rows[:2]]
    steps = ([2299, 19, 123, 656], [2314, 19, 119, 1075])
    assert found == [pytest.approx(step, abs=1) for step in steps]
    losses = [1000 * rows[2][f"{part}/loss"] for part in ("test", "minival")]
    assert losses == pytest.approx([2304, 2286], abs=1)
