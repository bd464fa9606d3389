"""Runs made by hand that speak to one claim each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

Run = dict[str, Any]
JITTER = (0.002, -0.002, 0.0, 0.001, -0.001)  # by seed, 0 on the mean

BASE: Run = {
    "status": "done",
    "config.data.name": "digits",
    "config.model.name": "pocket_vit",
    "config.placement": "last_2",
    "config.num_experts": 8,
    "config.capacity_factor": 1,
    "config.group": "image",
    "config.epochs": 5,
    "cost.slots_per_token": 1.0,
    "cost.flops_per_image": 1e9,
    "provenance.commit": "a",
}
MOE = ("config.placement", "config.num_experts", "config.capacity_factor", "config.group")


class Scene(NamedTuple):
    """A claim, and a function from an effect on it to runs that show it."""

    claim: str
    runs: Callable[[float], list[Run]]


def arm(
    router: str, gain: float, jitter: bool = False, run: Mapping[str, Any] | None = None, **more: Any
) -> list[Run]:
    """Five seeds of one configuration, 50 to 54 % and the gain; `more`: settings, with __ for the dot."""
    settings = {f"config.{name.replace('__', '.')}": value for name, value in more.items()}
    base = {name: value for name, value in BASE.items() if router != "dense" or name not in MOE}
    scored = base | {"config.router.name": router} | settings | dict(run or {})
    return [
        scored
        | {
            "run_id": f"{router}-{sorted(settings.items())}-{seed}",
            "config.seed": seed,
            "metrics.test/top1": 0.5 + 0.01 * seed + gain + (JITTER[seed] if jitter else 0.0),
            "jitter": jitter,
        }
        for seed in range(5)
    ]


def over(high: str, low: str) -> Callable[[float], list[Run]]:
    return lambda gain: [*arm(low, 0), *arm(high, gain, True)]


def soft_over_sparse(gain: float) -> list[Run]:
    # The mean of the sparse routers is 0.
    return [*arm("token_choice", -0.01), *arm("expert_choice", 0.01), *arm("soft", gain, True)]


def order(gain: float) -> list[Run]:
    return [*arm("token_choice", 0), *arm("expert_choice", gain, True), *arm("soft", 2 * gain)]


def priority(gain: float, k: int = 1, jitter: bool = True) -> list[Run]:
    few: Run = {"router__top_k": k, "router__capacity_factor": 0.5}
    off = arm("token_choice", 0, router__batch_priority=False, **few)
    return [*off, *arm("token_choice", gain, jitter, router__batch_priority=True, **few)]


def priority_by_k(gain: float) -> list[Run]:
    return [*priority(gain), *priority(0, 2, False)]


def last_2(gain: float) -> list[Run]:
    rival = arm("soft", 0, run={"placement_blocks": [1, 3, 5]}, placement="every_2")
    return [*arm("dense", 0), *rival, *arm("soft", gain, True, {"placement_blocks": [3, 5]})]


def every_2(gain: float) -> list[Run]:
    return [*arm("soft", 0), *arm("soft", gain, True, placement="every_2")]


def contiguous(gain: float, router: str = "soft") -> list[Run]:
    apart = arm(router, 0, run={"placement_blocks": [3, 5]})
    return [*apart, *arm(router, gain, True, {"placement_blocks": [4, 5]}, placement=[4, 5])]


def contiguous_by_router(gain: float) -> list[Run]:
    routers = ("soft", "expert_choice", "token_choice")
    return [run for router in routers for run in contiguous(gain, router)]


def gates(gain: float) -> list[Run]:
    others = [run for name in ("cosine", "l2") for run in arm("token_choice", 0, router__scorer=name)]
    return [*others, *arm("token_choice", gain, True, router__scorer="linear")]


def scales(gain: float) -> list[Run]:
    large = {"cost.flops_per_image": 4e9, "config.model.arguments.embed_dim": 96}
    small = [*arm("dense", 0), *arm("soft", gain, True)]
    return [*small, *arm("dense", 0.1, run=large), *arm("soft", 0.1, run=large)]


def experts_by_data(gain: float) -> list[Run]:
    few = [
        run
        for number in (4, 8)
        for run in arm("soft", 0, num_experts=number, data__train_split="train[:10%]")
    ]
    most = arm("soft", gain, True, num_experts=8, data__train_split="train")
    return [*few, *arm("soft", 0, num_experts=4, data__train_split="train"), *most]


def choices(gain: float) -> list[Run]:
    by_k = {1: 0.0, 2: gain, 4: gain}
    return [
        run
        for k, score in by_k.items()
        for run in arm("token_choice", score, k == 2, {"cost.flops_per_image": k * 1e9}, router__top_k=k)
    ]


def upcycled(gain: float) -> list[Run]:
    return arm("soft", gain, True, expert_init="upcycle", model__weights="results/runs/x")


def over_dense(gain: float) -> list[Run]:
    return [*arm("dense", 0, model__weights="results/runs/x"), *upcycled(gain)]


def over_scratch(gain: float) -> list[Run]:
    return [*arm("soft", 0, expert_init="shared"), *upcycled(gain)]


SCENES: dict[str, Callable[[float], list[Run]]] = {
    "expert over token choice": over("expert_choice", "token_choice"),
    "expert over token choice, Sinkhorn": over("sinkhorn_expert_choice", "sinkhorn_token_choice"),
    "soft over sparse": soft_over_sparse,
    "order at equal slots": order,
    "batch priority at k = 1": priority,
    "batch priority, k = 1 over 2": priority_by_k,
    "last_2 robust": last_2,
    "every_2 over last_2 for ViT": every_2,
    "contiguous over spread": contiguous,
    "contiguous under every router": contiguous_by_router,
    "linear gate": gates,
    "small models gain most": scales,
    "more experts with more data": experts_by_data,
    "less from each further choice": choices,
    "upcycling over dense": over_dense,
    "upcycling over a new start": over_scratch,
}


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest) -> Scene:
    """Each claim in turn."""
    return Scene(request.param, SCENES[request.param])


@pytest.fixture
def scenes() -> list[Scene]:
    """All claims."""
    return [Scene(*scene) for scene in SCENES.items()]


@pytest.fixture
def runs_of() -> Callable[..., list[Run]]:
    """The function that makes the runs of one configuration."""
    return arm
