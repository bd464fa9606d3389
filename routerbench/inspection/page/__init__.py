"""Chapters -> `index.html` of a run, one file that needs no other."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from routerbench.figures.svg import svg
from routerbench.inspection.figures.said import Numbers, interval, number
from routerbench.inspection.page.chapters import Chapter
from routerbench.inspection.seeing.seen import LayerSeen
from routerbench.report.page.document import environment, own_text, policy

HERE = Path(__file__).parent
NOTHING = "-"
SPECIALISATIONS = {"class": "class", "position": "position", "next_layer": "next layer"}
PLAIN = {
    "experts_per_image": "experts per image",
    "weight_similarity": "similarity of weights",
    "output_similarity": "similarity of outputs",
    "image_similarity": "similarity of images",
}


def page(
    record: dict[str, Any],
    layers: Sequence[LayerSeen],
    numbers: Numbers,
    chapters: Sequence[Chapter],
    formats: Sequence[str] = (),
) -> str:
    """The whole page, the same text for the same run; it names the files beside it, also of these formats."""
    style = own_text("style.css")
    return (
        environment(HERE)
        .get_template("page.html.j2")
        .render(
            run_id=record["run_id"],
            facts=_facts(record),
            columns=["layer", "experts", *SPECIALISATIONS.values(), *PLAIN.values()],
            lines=[_line(layer, numbers) for layer in layers],
            chapters=chapters,
            pictures=_pictures(chapters),
            endings=("csv", "svg", *formats),
            quote=quote,
            style=style,
            policy=policy(style),
        )
    )


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What the run is, in a few names and values; a dash for what the record does not say."""
    config, metrics = record["config"], record.get("metrics", {})
    settings = {
        "router": config["router"]["name"],
        "model": config.get("model", {}).get("name", NOTHING),
        "data": config.get("data", {}).get("name", NOTHING),
        "placement": config.get("placement", NOTHING),
        "experts": config.get("num_experts", NOTHING),
        "capacity factor": config.get("capacity_factor", NOTHING),
        "group": config.get("group", NOTHING),
        "seed": config["seed"],
    }
    accuracies = {"top-1 %": "test/top1", "balanced accuracy %": "test/balanced"}
    scores = {label: _percent(number(metrics, name)) for label, name in accuracies.items()}
    return [(name, str(value)) for name, value in {**settings, **scores}.items()]


def _percent(fraction: float) -> str:
    return NOTHING if math.isnan(fraction) else f"{100 * fraction:.2f}"


def _line(layer: LayerSeen, numbers: Numbers) -> list[str]:
    explained = [_explained(numbers, f"{layer.name}/{what}") for what in SPECIALISATIONS]
    plain = [number(numbers, f"{layer.name}/{what}") for what in PLAIN]
    texts = [NOTHING if math.isnan(value) else f"{value:.2f}" for value in plain]
    return [layer.name, str(layer.num_experts), *explained, *texts]


def _explained(numbers: Numbers, name: str) -> str:
    return NOTHING if math.isnan(number(numbers, name)) else interval(numbers, name)


def _pictures(chapters: Sequence[Chapter]) -> list[list[Markup]]:
    return [
        [Markup(svg(one.picture, f"p{place}-{number}")) for number, one in enumerate(chapter.drawn)]
        for place, chapter in enumerate(chapters)
    ]
