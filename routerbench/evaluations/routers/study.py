"""Does the router matter? Accuracy lost when trained routers are replaced at test time."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from routerbench.costs import ExecutedFlops
from routerbench.evaluations.figures.routers import COLUMNS, replacement_picture, replacement_rows
from routerbench.evaluations.measurement import Asked, Measurement, Result, entry_name, kept_results
from routerbench.evaluations.names import OF_ANOTHER_RUN, REPLACEMENTS
from routerbench.evaluations.routers.matching import co_occurrence, matched
from routerbench.evaluations.routers.replacements import Routers, impossible, layers_of, standing_in
from routerbench.evaluations.routers.rescored import Rescored, replaced
from routerbench.evaluations.routers.scene import Other, Pass, Scene, take
from routerbench.evaluations.seeing.observed import FOLDER
from routerbench.figures.saved import save
from routerbench.identity import group_id
from routerbench.load import FinishedRun
from routerbench.moe.surgery import moe_layers
from routerbench.stats import CONFIDENCE
from routerbench.stats.matched import matched_difference

STUDY = "routers"


def measurements(run: FinishedRun, asked: Asked) -> Iterator[Measurement]:
    """One for each replacement of all MoE layers at once, and of each layer alone where there are several.

    Without names in `asked` it is every replacement that is possible; at the end the picture of all that the
    record then holds is drawn. Raises ValueError for a replacement that is not for this run.
    """
    if not moe_layers(run.model):
        if asked.replacements:
            raise ValueError(
                f"--replace={asked.replacements[0]} is not for {run.run_id}: it has no MoE layer"
            )
        return
    scene = Scene(run, asked.seed)
    others = [Other(other, scene) for other in asked.others if _is_twin(run, other)]
    reasons = impossible(scene, others)
    for name in asked.replacements:
        if name in reasons:
            raise ValueError(f"--replace={name} is not for {run.run_id}: {reasons[name]}")
    for name in asked.replacements or [name for name in REPLACEMENTS if name not in reasons]:
        for other in others if name in OF_ANOTHER_RUN else [None]:
            yield from _of_layers(scene, name, other)
    _draw(run)


def _draw(run: FinishedRun) -> None:
    """Draw all that the record holds; raises UnwritableError."""
    if results := kept_results(run, STUDY):
        picture, rows = replacement_picture(results), replacement_rows(results)
        save(run.folder / FOLDER, entry_name(run, STUDY).replace(" ", "_"), picture, COLUMNS, rows)


def lost(
    trained: Bool[np.ndarray, "N"], replacement: Bool[np.ndarray, "N"], prefix: str = "top1_lost_points"
) -> dict[str, float]:
    """Points of accuracy lost, with their 95 % interval over the images, each paired with itself."""
    estimate = matched_difference(trained, replacement, CONFIDENCE)
    ends = {"": estimate.mean, "_low": estimate.low, "_high": estimate.high}
    return {f"{prefix}{end}": 100 * value for end, value in ends.items()}


def _of_layers(scene: Scene, name: str, other: Other | None) -> Iterator[Measurement]:
    layers = layers_of(scene, name)
    alone = [[layer] for layer in layers] if len(scene.layers) > 1 else []
    called = name if other is None else f"{name}={other.seed}"
    further = [f"seed={scene.seed}"] if scene.seed != Asked().seed else []
    for chosen in (layers, *alone):
        place = chosen if chosen in alone else []
        mode = " ".join([called, *place, *further])
        rests_on = {} if other is None else {"other": _described(other)}
        yield Measurement(mode, lambda chosen=chosen: _replaced(scene, name, chosen, other), rests_on)


def _described(other: Other) -> Result:
    """Which run it is, and which training of it."""
    trained = other.run.record["provenance"].get("finished")
    return {"run_id": other.run.run_id, "finished": trained, "weights": other.run.weights}


def _replaced(scene: Scene, name: str, layers: Sequence[str], other: Other | None) -> Result:
    run, trained = scene.run, scene.trained
    with standing_in(scene, name, list(layers), other) as routers, replaced(run.model, routers):
        found = take(run, scene.order)
    costs = _costs(run, routers)
    before, after = trained.seen.metrics(costs), found.seen.metrics(costs)
    return {
        **lost(trained.seen.correct, found.seen.correct),
        **{key: after[key] for key in ("top1", "top5", "balanced", "loss")},
        "top1_trained": before["top1"],
        "balanced_lost_points": 100 * (before["balanced"] - after["balanced"]),
        "dropped_fraction": after["dropped_fraction"],
        "slots_per_image": after["slots_per_image"],
        "executed_flops_per_image": after["executed_flops_per_image"],
        "first_choice_agreement": _agreement(trained, found, layers),
        "first_choice_agreement_chance": _chance(scene, found, layers, name.endswith("matched")),
    }


def _agreement(trained: Pass, found: Pass, layers: Sequence[str]) -> float:
    """The share of tokens with the first choice that they had, the mean over the replaced layers."""
    return float(np.mean([(trained.first[layer] == found.first[layer]).mean() for layer in layers]))


def _chance(scene: Scene, found: Pass, layers: Sequence[str], fitted: bool) -> float:
    """The same with the choices of another image, drawn at random; `fitted`: by experts matched to these."""
    order = np.random.default_rng(scene.seed).permutation(len(scene.order))
    return float(np.mean([_by_chance(scene, found, layer, order, fitted) for layer in layers]))


def _by_chance(scene: Scene, found: Pass, layer: str, order: NDArray[np.int64], fitted: bool) -> float:
    num_experts = scene.layers[layer].experts.num_experts
    exchanged = found.first[layer].reshape(len(order), -1)[order].ravel()
    together = co_occurrence(scene.trained.first[layer], exchanged, num_experts)
    columns = matched(together) if fitted else np.arange(num_experts)
    return float(together[np.arange(num_experts), columns].sum() / together.sum())


def _costs(run: FinishedRun, routers: Routers) -> ExecutedFlops:
    """What a forward pass takes with these routers; changed scores cost what the router itself does."""
    size = run.config.data.image_size
    plain = {
        name: router.plain if isinstance(router, Rescored) else router for name, router in routers.items()
    }
    with replaced(run.model, plain):
        return ExecutedFlops.of(run.model, (size, size))


def _is_twin(run: FinishedRun, other: FinishedRun) -> bool:
    """Whether another run differs from this one by its seed alone."""
    own, its = run.record["config"], other.record["config"]
    return own["seed"] != its["seed"] and group_id(own) == group_id(its)
