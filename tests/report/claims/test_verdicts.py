"""Every claim under runs that support it, contradict it, leave it open, or do not speak to it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats

from routerbench.report.claims import claims_found
from routerbench.report.claims.catalogue import all_claims
from routerbench.report.claims.claim import Claim, Part, nothing_published
from routerbench.report.claims.verdicts import Finding, findings_of
from routerbench.report.runs.metric import Metric
from routerbench.stats import holm

Run = dict[str, Any]
TOP1 = Metric("test/top1", "top-1 %")
DELTA = 0.003
AT_SLOTS = ("expert over token choice", "expert over token choice, Sinkhorn", "order at equal slots")


class Scene(NamedTuple):
    claim: str
    runs: Callable[[float], list[Run]]


def finding(claim: str, runs: list[Run]) -> Finding:
    (found,) = (one for one in claims_found(runs, TOP1, DELTA) if one.claim.name == claim)
    return found


def changed(runs: list[Run], change: Mapping[str, Any]) -> list[Run]:
    """The runs, those that the claim is about (the jittered ones) with a change."""
    return [run | dict(change) if run["jitter"] else run for run in runs]


def test_there_is_a_scene_for_every_claim(scenes: list[Scene]) -> None:
    assert [scene.claim for scene in scenes] == [claim.name for claim in all_claims()]


def test_a_large_effect_supports(scene: Scene) -> None:
    found = finding(scene.claim, scene.runs(0.05))
    assert (found.verdict, found.p < 0.05) == ("supported", True)
    assert found.deciding is not None
    assert found.deciding.interval.low > 0
    assert all(judged.effect.mean == pytest.approx(0.05) for judged in found.parts)


def test_a_large_effect_the_other_way_contradicts(scene: Scene) -> None:
    found = finding(scene.claim, scene.runs(-0.05))
    assert (found.verdict, found.p < 0.05) == ("contradicted", True)
    assert found.deciding is not None
    assert found.deciding.interval.high < -DELTA


def test_an_effect_at_the_bound_leaves_it_undecided(scene: Scene) -> None:
    bound = -DELTA if finding(scene.claim, []).claim.at_least_as_good else 0.0
    found = finding(scene.claim, scene.runs(bound))
    assert (found.verdict, found.p) == ("undecided", 1)
    assert found.deciding is not None
    assert found.deciding.interval.low < bound < found.deciding.interval.high


def test_without_runs_it_is_not_tested(scene: Scene) -> None:
    found = finding(scene.claim, [])
    assert (found.verdict, found.deciding, np.isnan(found.p)) == ("not tested", None, True)


@pytest.mark.parametrize("status", ["failed", "diverged", "oom"])
def test_runs_that_did_not_finish_do_not_speak(scene: Scene, status: str) -> None:
    runs = changed(scene.runs(0.05), {"status": status})
    assert finding(scene.claim, runs).verdict == "not tested"


@pytest.mark.parametrize("name", ["epochs", "data.name", "optim.lr", "augment.name"])
def test_runs_of_other_cells_do_not_speak(scene: Scene, name: str) -> None:
    runs = changed(scene.runs(0.05), {f"config.{name}": 7})
    assert finding(scene.claim, runs).verdict == "not tested"


def test_runs_of_other_seeds_do_not_speak(scene: Scene) -> None:
    runs = [run | {"config.seed": run["config.seed"] + 5 * run["jitter"]} for run in scene.runs(0.05)]
    assert finding(scene.claim, runs).verdict == "not tested"


def test_runs_without_the_metric_do_not_speak(scene: Scene) -> None:
    runs = [{path: run[path] for path in run if path != "metrics.test/top1"} for run in scene.runs(0.05)]
    assert finding(scene.claim, runs).verdict == "not tested"


@pytest.mark.parametrize(
    "name", ["num_experts", "capacity_factor", "router.top_k", "placement", "model.name", "data.train_split"]
)
@pytest.mark.parametrize("value", ["<b>", [1, 2], -1, 0.5])
def test_no_setting_breaks_the_table(scenes: list[Scene], name: str, value: Any) -> None:
    runs = [run for scene in scenes for run in changed(scene.runs(0.05), {f"config.{name}": value})]
    assert len(claims_found(runs, TOP1, DELTA)) == len(scenes)


def test_one_seed_decides_nothing(scene: Scene) -> None:
    found = finding(scene.claim, [run for run in scene.runs(0.05) if run["config.seed"] == 0])
    assert (found.verdict, np.isnan(found.p)) == ("undecided", True)
    assert found.deciding is not None
    assert found.deciding.effect.n == 1


def test_the_order_of_the_runs_does_not_matter(scene: Scene) -> None:
    runs = scene.runs(0.001)
    there, back = finding(scene.claim, runs), finding(scene.claim, runs[::-1])
    assert [judged.interval for judged in there.parts] == [judged.interval for judged in back.parts]


@pytest.mark.parametrize("claim", AT_SLOTS)
@pytest.mark.parametrize(("slots", "verdict"), [(1.04, "supported"), (1.06, "not tested")])
def test_slots_differ_by_at_most_5_percent(
    scenes: list[Scene], claim: str, slots: float, verdict: str
) -> None:
    runs = changed(dict(scenes)[claim](0.05), {"cost.slots_per_token": slots})
    assert finding(claim, runs).verdict == verdict


def test_slots_in_evaluation_count_too(scenes: list[Scene]) -> None:
    runs = dict(scenes)[AT_SLOTS[0]](0.05)
    runs = [run | {"cost.slots_per_token_eval": 2.0 if run["jitter"] else 1.0} for run in runs]
    assert finding(AT_SLOTS[0], runs).verdict == "not tested"


def test_another_capacity_factor_speaks_where_slots_are_equal(scenes: list[Scene]) -> None:
    # Token Choice with k = 2 has twice the slots of its factor.
    runs = changed(dict(scenes)[AT_SLOTS[0]](0.05), {"config.capacity_factor": 2})
    assert finding(AT_SLOTS[0], runs).verdict == "supported"
    unequal = changed(runs, {"cost.slots_per_token": 2.0})
    assert finding(AT_SLOTS[0], unequal).verdict == "not tested"


def test_gates_of_two_kinds_are_not_compared_at_equal_slots(scenes: list[Scene]) -> None:
    runs = [run | {"config.router.scorer": "linear"} for run in dict(scenes)[AT_SLOTS[0]](0.05)]
    assert finding(AT_SLOTS[0], runs).verdict == "supported"
    assert finding(AT_SLOTS[0], changed(runs, {"config.router.scorer": "l2"})).verdict == "not tested"


@pytest.mark.parametrize(("flops", "verdict"), [(1.04e9, "supported"), (1.06e9, "not tested")])
def test_soft_and_sparse_have_equal_flops(scenes: list[Scene], flops: float, verdict: str) -> None:
    runs = changed(dict(scenes)["soft over sparse"](0.05), {"cost.flops_per_image": flops})
    assert finding("soft over sparse", runs).verdict == verdict


@pytest.mark.parametrize("factor", [0.5, 1, 1.5])
def test_priority_is_tested_where_slots_are_few(scenes: list[Scene], factor: float) -> None:
    claim = "batch priority at k = 1"
    runs = [run | {"config.router.capacity_factor": factor} for run in dict(scenes)[claim](0.05)]
    assert finding(claim, runs).verdict == ("supported" if factor <= 1 else "not tested")
    counted = [run | {"config.router.capacity": 4} for run in runs]
    assert finding(claim, counted).verdict == "not tested"


def test_every_2_is_a_claim_on_vits(scenes: list[Scene]) -> None:
    claim = "every_2 over last_2 for ViT"
    runs = [run | {"config.model.name": "pocket_convnext"} for run in dict(scenes)[claim](0.05)]
    assert finding(claim, runs).verdict == "not tested"


def test_one_bad_backbone_contradicts_that_last_2_is_robust(scenes: list[Scene]) -> None:
    claim, robust = "last_2 robust", dict(scenes)["last_2 robust"]
    bad = [run | {"config.model.name": "pocket_convnext"} for run in robust(-0.05)]
    found = finding(claim, [*robust(0.05), *bad])
    assert found.verdict == "contradicted"
    assert found.deciding is not None
    assert found.deciding.part.name.endswith("pocket_convnext")


def test_the_same_blocks_by_number_are_no_rival_of_last_2(runs_of: Callable[..., list[Run]]) -> None:
    blocks = {"placement_blocks": [3, 5]}
    runs = [*runs_of("soft", 0, run=blocks), *runs_of("soft", 0, run=blocks, placement=[3, 5])]
    assert finding("last_2 robust", runs).verdict == "not tested"


def test_a_missing_step_leaves_the_order_undecided(scenes: list[Scene]) -> None:
    runs = [run for run in dict(scenes)["order at equal slots"](0.05) if run["config.router.name"] != "soft"]
    found = finding("order at equal slots", runs)
    assert (found.verdict, [judged.effect.n for judged in found.parts]) == ("undecided", [0, 5])


def test_further_choices_must_cost_more(scenes: list[Scene]) -> None:
    claim = "less from each further choice"
    runs = [run | {"cost.flops_per_image": 1e9} for run in dict(scenes)[claim](0.05)]
    assert finding(claim, runs).verdict == "not tested"


def test_models_of_equal_flops_are_not_small_and_large(scenes: list[Scene]) -> None:
    claim = "small models gain most"
    runs = [run | {"cost.flops_per_image": 1e9} for run in dict(scenes)[claim](0.05)]
    assert finding(claim, runs).verdict == "not tested"


def test_a_share_of_the_data_is_not_compared_with_a_number_of_images(scenes: list[Scene]) -> None:
    claim = "more experts with more data"
    runs = dict(scenes)[claim](0.05)
    counted = [run | {"config.data.train_split": f"{run['config.data.train_split']}[:500]"} for run in runs]
    counted = [run for run in counted if "%" not in run["config.data.train_split"]]
    shared = [run for run in runs if "%" in run["config.data.train_split"]]
    assert finding(claim, [*shared, *counted]).verdict == "not tested"


@pytest.mark.parametrize(
    ("few", "verdict"), [("50%", "supported"), ("99%", "not tested"), ("500", "supported")]
)
def test_more_data_are_twice_as_many(scenes: list[Scene], few: str, verdict: str) -> None:
    claim, path = "more experts with more data", "config.data.train_split"
    runs = [run | {path: run[path].replace("10%", few)} for run in dict(scenes)[claim](0.05)]
    assert finding(claim, runs).verdict == verdict


def test_two_claims_share_the_level_by_hand() -> None:
    parts = [[[0.01, 0.02, 0.03]], [[0.01, -0.01]], []]
    pairs = [(_claim(), [Part("", differences, [])]) for differences in parts]
    first, second, third = findings_of(pairs, DELTA)
    # t = 0.02 / (0.01 / sqrt 3) = 3.46 with 2 degrees of freedom: p = 0.0742, doubled for the two tested.
    assert (first.verdict, first.p) == ("undecided", pytest.approx(2 * 0.0742, abs=1e-4))
    assert (second.verdict, second.p, third.verdict) == ("undecided", 1, "not tested")
    # The interval at 1 - 0.05 / 2: t(0.9875, 2) = 6.205.
    assert first.parts[0].interval.low == pytest.approx(0.02 - 6.205 * 0.01 / 3**0.5, abs=1e-5)


def test_equal_routers_are_seldom_told_apart() -> None:
    """Of tables of five claims on normal differences around 0, at most 5 % claim anything."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        cells = generator.normal(0, 0.01, (5, 2, 2, 4))  # claims, parts, cells, seeds
        found = findings_of([(_claim(), _parts(own)) for own in cells], DELTA)
        wrong += any(one.verdict != "undecided" for one in found)
    assert wrong <= 28  # 20, and two standard deviations


@pytest.mark.parametrize("spreads", [(5, 1), (10, *[1] * 8)])
def test_tables_of_cells_of_unlike_spread_are_seldom_wrong(spreads: Sequence[float]) -> None:
    """Of tables of 13 claims around 0 on three seeds, at most 5 % claim anything."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        cells = generator.normal(size=(13, 1, len(spreads), 3)) * 0.01 * np.array(spreads)[:, None]
        found = findings_of([(_claim(), _parts(own)) for own in cells], DELTA)
        wrong += any(one.verdict != "undecided" for one in found)
    assert wrong <= 22  # 15, and two standard deviations


def test_p_is_holms() -> None:
    for differences in np.random.default_rng(2).normal(0.004, 0.01, (50, 5, 5)):
        found = findings_of([(_claim(), _parts([[own]])) for own in differences], DELTA)
        raw = np.asarray(stats.ttest_1samp(differences, 0, axis=1))[1]
        assert [one.p for one in found] == pytest.approx(holm(raw).tolist())


def test_a_claim_hangs_on_a_part_that_was_tested() -> None:
    parts = _parts([[[0.02]], [[0.01, 0.02, 0.03]]])
    (found,) = findings_of([(_claim(), parts)], DELTA)
    assert found.verdict == "undecided"
    assert found.deciding is not None
    assert found.deciding.part is parts[1]


def test_some_claim_is_told_where_the_smallest_p_is_small_enough_for_all() -> None:
    for differences in np.random.default_rng(1).normal(0.004, 0.01, (200, 4, 5)):
        found = findings_of([(_claim(), _parts([[own]])) for own in differences], DELTA)
        smallest = min(float(p) for p in np.asarray(stats.ttest_1samp(differences, 0, axis=1))[1])
        assert any(one.verdict != "undecided" for one in found) == (smallest <= 0.05 / 4)


def test_runs_of_equal_routers_support_no_claim(scenes: list[Scene]) -> None:
    """All scenes at once, each run with a score of its own around one mean: the whole table."""
    generator = np.random.default_rng(0)
    runs = [run for scene in scenes for run in scene.runs(0)]
    better = {claim.name for claim in all_claims() if not claim.at_least_as_good}
    wrong = 0
    for _ in range(40):
        drawn = [run | {"metrics.test/top1": generator.normal(0.5, 0.01)} for run in runs]
        found = claims_found(drawn, TOP1, DELTA)
        told = [one.verdict in ("supported", "contradicted") for one in found if one.claim.name in better]
        wrong += any(told) or any(one.verdict == "contradicted" for one in found)
    assert wrong <= 4  # 2, and two standard deviations


def _claim() -> Claim:
    return Claim("", "", "", "", lambda setups: [], nothing_published)


def _parts(parts: Any) -> list[Part]:
    """The differences of parts, by cell and seed, as parts."""
    return [Part("", [list(map(float, cell)) for cell in part], []) for part in parts]
