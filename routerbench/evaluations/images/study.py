"""Other images than those a run was tested on: robustness sets, and probes of its features."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from routerbench.data.corruptions import TOP1, corruption_means
from routerbench.data.extra import ExtraImages
from routerbench.data.fingerprint import Fingerprint, of_dataset, of_folder, of_several
from routerbench.data.folders import evaluated_folder
from routerbench.data.loaders import test_loader
from routerbench.evaluate import predict
from routerbench.evaluations.measurement import Asked, Measurement, Result, kept_results
from routerbench.fewshot import check_features, fewshot
from routerbench.linear_probe import linear_probe
from routerbench.load import FinishedRun
from routerbench.parts import described_sets, load_fewshot, load_linear_probe, probe_sets
from routerbench.stats import CONFIDENCE, proportion_interval

STUDY = "images"


def measurements(run: FinishedRun, asked: Asked) -> Iterator[Measurement]:
    """One for each set of `asked.settings`, by its name; of several in one folder, also their means.

    Raises ValueError for a setting that is not known, a set that is not for this run, and a folder that is
    not there.
    """
    if not asked.settings:
        return
    config = run.config.copy()
    settings = OmegaConf.create(OmegaConf.to_container(asked.settings, resolve=True))
    assert isinstance(settings, DictConfig)
    config.eval = settings
    sets = described_sets(settings)
    known = {*PROBES, *(part.split("/")[0] for part in sets)}
    for name in map(str, settings):
        if name not in known:
            raise ValueError(f"eval.{name} is no file of conf/eval: give +eval=<one of them>")
    for images in sets.values():
        images.check_classes(run.test.class_names)
        evaluated_folder(images.name, images.path)
    yield from [_of_probe(run, config, name) for name in map(str, settings) if name in PROBES]
    yield from _of_sets(run, sets)


def _of_sets(run: FinishedRun, sets: dict[str, ExtraImages]) -> Iterator[Measurement]:
    taken: dict[str, Result] = {}

    def take(name: str) -> Result:
        taken[name] = _accuracies(run, sets[name])
        return taken[name]

    found: dict[str, Fingerprint] = {}
    for name, images in sets.items():
        found[name] = of_folder(evaluated_folder(images.name, images.path))
        rests_on = {"settings": _settings(images), "images": found[name]}
        yield Measurement(name, partial(take, name), rests_on)
    for name in dict.fromkeys(name.split("/")[0] for name in sets if "/" in name):
        parts = [part for part in sets if part.split("/")[0] == name]
        rests_on = {"parts": parts, "images": of_several([found[part] for part in parts])}
        yield Measurement(name, partial(_means, run, name, parts, taken), rests_on)


def _settings(images: ExtraImages) -> dict[str, Any]:
    """What a set is, wherever it lies."""
    return {"kind": type(images).__name__, **_without_paths(asdict(images))}


def _without_paths(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {name: _without_paths(value) for name, value in settings.items() if name != "path"}
    return settings


def _means(run: FinishedRun, name: str, parts: list[str], taken: dict[str, Result]) -> Result:
    """Means over the parts of a set: those just taken, and those that the record had."""
    known = kept_results(run, STUDY) | taken
    top1 = {f"{part}/top1": known[part]["top1"] for part in parts}
    means = corruption_means({key: value for key, value in top1.items() if TOP1.fullmatch(key)})
    return {key.removeprefix(f"{name}/"): value for key, value in means.items()}


def _accuracies(run: FinishedRun, images: ExtraImages) -> Result:
    """Top-1 and top-5 accuracy, and the 95 % interval of the former over images."""
    extra = images.for_model(run.test.class_names, partial(test_loader, **run.test.of_batches))
    with closing(extra.loader) as loader:
        logits, labels = predict(run.model, loader.epoch(0), run.device, run.autocast)
    found = extra.accuracies(logits, labels)
    right = round(found["top1"] * len(labels))
    low, high = proportion_interval(right, len(labels), CONFIDENCE)
    return {**found, "top1_low": low, "top1_high": high, "num_images": len(labels)}


def _of_probe(run: FinishedRun, config: DictConfig, name: str) -> Measurement:
    check_features(run.model, config.model.name, config.data.image_size, name)
    data = config.eval[name].get("data")
    mode = name if data is None else f"{name} data={data.name}"
    _, pool, test = probe_sets(config, name)
    rests_on = {
        "settings": _without_paths(OmegaConf.to_container(config.eval[name], resolve=True)),
        "images": of_several([of_dataset(pool), of_dataset(test)]),
    }
    return Measurement(mode, partial(PROBES[name], run, config), rests_on)


def _fewshot(run: FinishedRun, config: DictConfig) -> Result:
    few = load_fewshot(config)
    assert few is not None
    with closing(few.test) as test:
        found = fewshot(run.model, few.probe, few.labels, few.load, test.epoch(0), run.device, run.autocast)
    return {name.replace("fewshot/", "shots_"): value for name, value in found.items()}


def _linear_probe(run: FinishedRun, config: DictConfig) -> Result:
    probed = load_linear_probe(config)
    assert probed is not None
    with closing(probed.train) as train, closing(probed.test) as test:
        found = linear_probe(run.model, probed.probe, train.epoch(0), test.epoch(0), run.device, run.autocast)
    return {name.removeprefix("linear_probe/"): value for name, value in found.items()}


PROBES = {"fewshot": _fewshot, "linear_probe": _linear_probe}
