from typing import Any

import pytest

from routerbench.report.published import published_score

DENSE: dict[str, Any] = {
    "data.name": "folder",
    "data.path": "/data/imagenet",
    "data.image_size": 224,
    "model.name": "vit_small_patch16_224",
    "epochs": 300,
    "router.name": "dense",
}
SPARSE = DENSE | {
    "router.name": "token_choice",
    "router.top_k": 2,
    "router.scorer": "linear",
    "placement": "every_2",
    "num_experts": 8,
}
CONVNEXT = SPARSE | {"model.name": "convnext_tiny", "router.top_k": 1, "expert_mlp_ratio": 2}


@pytest.mark.parametrize(
    ("settings", "percent", "table"),
    [
        (DENSE, 79.8, 1),
        (DENSE | {"model.name": "convnext_iso_base"}, 82.0, 1),
        (DENSE | {"data.path": "ILSVRC2012", "data.name": "hfds"}, 79.8, 1),
        (SPARSE, 80.7, 1),
        (SPARSE | {"placement": "last_2"}, 80.5, 1),
        (CONVNEXT | {"placement": "stage"}, 82.1, 3),
        (CONVNEXT, 81.8, 3),
        (SPARSE | {"placement": "last_2", "num_experts": 16}, 80.2, 4),
        (SPARSE | {"placement": "last_2", "router.top_k": 1}, 80.2, 4),
    ],
)
def test_what_is_printed_for_a_row(settings: dict[str, Any], percent: float, table: int) -> None:
    published = published_score(settings, "test/top1")
    assert published is not None
    assert published.score == pytest.approx(percent / 100)
    assert published.source == f"Videau et al. 2025, table {table}"


@pytest.mark.parametrize(
    "settings",
    [
        DENSE | {"model.name": "vit_tiny_patch16_224"},
        DENSE | {"model.weights": "results/runs/x"},
        DENSE | {"data.path": "/data/imagenet21k"},
        DENSE | {"data.path": "/data/imagenet-a"},
        DENSE | {"data.path": "/data/imagenet/subset_of_cats", "data.train_split": "train[:10%]"},
        DENSE | {"epochs": 90},
        DENSE | {"data.image_size": 384},
        SPARSE | {"router.name": "expert_choice"},
        SPARSE | {"router.scorer": "cosine"},
        SPARSE | {"router.top_k": 4},
        SPARSE | {"placement": [10, 11]},
        SPARSE | {"num_experts": 32},
        CONVNEXT | {"expert_mlp_ratio": None},
        SPARSE | {"expert_mlp_ratio": 2},
    ],
)
def test_nothing_is_printed_for_what_differs(settings: dict[str, Any]) -> None:
    assert published_score(settings, "test/top1") is None


def test_only_top1_is_compared() -> None:
    assert published_score(DENSE, "test/top5") is None
