"""Boards -> families: the cells that are equal but for the scale of one kind of model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from routerbench.report.across.configurations import evaluation_of, names_of, rows_by_configuration
from routerbench.report.boards.board import Board
from routerbench.report.boards.cells import DENSE, OF_MOE, title_of, without
from routerbench.report.boards.labels import differing, label_of
from routerbench.report.boards.rows import Row
from routerbench.report.runs.metric import Metric
from routerbench.report.runs.run import Settings, key_of, text_of

# What of a model's name says its size: vit_small_patch16_224 is a vit, convnext_iso_base a convnext_iso.
SIZE = re.compile(
    r"pocket|atto|femto|pico|nano|x?tiny|x?small|medium|base|x?large|huge|giant|gigantic|"
    r"(ti|s|m|b|l|h|g|so)?\d+m?|patch\d+"
)


@dataclass(frozen=True)
class Configuration:
    """One configuration: its rows by the name of the scale, in the order of the family's boards."""

    key: str
    name: str
    rows: Mapping[str, Row]

    @property
    def router(self) -> str:
        return next(iter(self.rows.values())).router


@dataclass(frozen=True)
class Family:
    """The configurations of cells that are equal but for the model, and the settings that all cells share."""

    title: str
    evaluation: str
    by: Sequence[str]
    settings: Settings
    metric: Metric
    scales: Sequence[str]
    configurations: Sequence[Configuration]


def families_of(boards: Sequence[Board]) -> list[Family]:
    """One family for each set of cells that are equal but for the scale, with all rows that have a score.

    Equal but for the scale: all settings but `model.*` are equal, the models are of one kind by their names,
    and all start from trained weights or none does. Boards of dense runs alone, whose cells have no settings
    of the MoE, join each family that is equal but for those.
    """
    cells: dict[str, list[Board]] = {}
    alone: dict[str, list[Board]] = {}
    for board in boards:
        key = key_of(_but_for_scale(board.settings))
        (alone if _dense_only(board) else cells).setdefault(key, []).append(board)
    dense_of = {key: _dense_key(own[0]) for key, own in cells.items()}
    groups = [[*own, *alone.get(dense_of[key], [])] for key, own in cells.items()]
    groups += [own for key, own in alone.items() if key not in dense_of.values()]
    families = [_family(own) for own in groups]
    return _told_apart([family for family in families if family.configurations])


def kind_of(model: str) -> str:
    """The kind of a model by its name, without its size, its patches and its trained weights."""
    words = model.partition(".")[0].split("_")
    return "_".join(word for word in words if not SIZE.fullmatch(word)) or model


def _but_for_scale(cell: Settings) -> dict[str, object]:
    kind = kind_of(text_of(cell.get("model.name", "")))
    return without(cell, ["model"]) | {"kind": kind, "trained": "model.weights" in cell}


def _dense_key(board: Board) -> str:
    return key_of(without(_but_for_scale(board.settings), OF_MOE))


def _dense_only(board: Board) -> bool:
    return all(row.router == DENSE for row in board.rows)


def _family(boards: Sequence[Board]) -> Family:
    scales = _scales([_model(board) for board in boards])
    rows: dict[str, dict[str, Row]] = {}
    for scale, board in zip(scales, boards, strict=True):
        for key, row in rows_by_configuration(board).items():
            if row.scores:
                rows.setdefault(key, {})[scale] = row
    first, names = boards[0], names_of(rows, boards[0].by)
    own = sorted((Configuration(key, names[key], rows[key]) for key in rows), key=lambda one: one.name)
    return Family(
        title=_title(boards),
        evaluation=evaluation_of(boards),
        by=first.by,
        settings=without(first.settings, ["model"]),
        metric=first.metric,
        scales=scales,
        configurations=own,
    )


def _scales(models: Sequence[Settings]) -> list[str]:
    """A name for each scale: the model's, or what tells it from others that have the same name."""
    alike = len({text_of(model.get("model.name")) for model in models}) == 1 < len(models)
    names = [label_of(model, models, ["model"]) if model else "" for model in models]
    return [name.partition(" ")[2] if alike else name for name in names]


def _model(board: Board) -> dict[str, object]:
    return {name: value for name, value in board.settings.items() if name.startswith("model.")}


def _title(boards: Sequence[Board]) -> str:
    """The title of the cells with the kind of the model in place of its name."""
    cell = boards[0].settings
    models = {key_of(_model(board)) for board in boards}
    if len(models) > 1:
        cell = {**cell, "model.name": f"{kind_of(text_of(cell['model.name']))} at {len(models)} scales"}
    return title_of(cell, boards[0].by)


def _told_apart(families: Sequence[Family]) -> list[Family]:
    """The families, those of one title with the settings in which they differ."""
    namesakes: dict[str, list[Settings]] = {}
    for family in families:
        namesakes.setdefault(family.title, []).append(family.settings)
    return [replace(family, title=_full(family, namesakes[family.title])) for family in families]


def _full(family: Family, namesakes: Sequence[Settings]) -> str:
    parts = [f"{name}={text_of(family.settings.get(name))}" for name in differing(namesakes)]
    return " · ".join([family.title, *parts])
