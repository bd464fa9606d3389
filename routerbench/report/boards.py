"""Runs -> boards: one a cell (all that must be equal), with a row for each configuration in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from routerbench.config import conf_dir
from routerbench.report.rows import DENSE, Row, origins_of, row_of
from routerbench.report.runs import Run, Settings, finished_last, key_of, runs_of, settings_of, text_of

REFERENCES = (DENSE, "hash", "random")  # a router that does not beat them has learnt nothing
MOE_IN_TITLE = ("placement", "num_experts", "capacity_factor", "group")
OF_EXPERTS = ("expert_init", "expert_mlp_ratio", "expert_dropout", "extra_skip", "optim.expert_weight_decay")
OF_MOE = (*MOE_IN_TITLE, *OF_EXPERTS)  # the settings that a dense run has not
IN_TITLE = ("data.name", "model.name", *MOE_IN_TITLE, "epochs")
EVALUATION = "evaluation at train capacity"
SOME_EVALUATED_OTHERWISE = "evaluation at train capacity unless a row says otherwise"
WEIGHTS = {"raw": "raw weights", "ema": "running average of the weights"}
OF_EVALUATION = ("capacity_factor_eval", "top_k_eval", "dropless")  # of a router, where not as in training
UNFINISHED, MIXED, FEWER_PAIRS = "†", "‡", "§"


@dataclass(frozen=True)
class Board:
    """The rows of one cell; `settings` are those that all its rows share."""

    title: str
    subtitle: str
    settings: Settings
    rows: Sequence[Row]
    notes: Sequence[str]


def build_boards(records: pd.DataFrame) -> list[Board]:
    """One board a cell of `read_records`' rows; a dense run joins each cell equal to it but for the MoE."""
    cells: dict[str, list[Run]] = {}
    twins: dict[str, list[Run]] = {}
    for run in runs_of(records):
        group = twins if run["config.router.name"] == DENSE else cells
        group.setdefault(key_of(_cell(run)), []).append(run)
    joined = {key_of(_without_moe(_cell(runs[0]))) for runs in cells.values()}
    boards = [_board(runs, twins.get(key_of(_without_moe(_cell(runs[0]))), [])) for runs in cells.values()]
    boards += [_board([], runs) for key, runs in twins.items() if key not in joined]
    boards.sort(key=_order)
    return [_tell_apart(board, boards) for board in boards]


def marks(row: Row, board: Board) -> str:
    """The footnote signs of a row."""
    has_dense = any(other.router == DENSE and other.done for other in board.rows)
    pairs_missing = has_dense and row.router != DENSE and row.minus_dense.n < row.done
    signs = ((UNFINISHED, row.unfinished), (MIXED, row.mixed), (FEWER_PAIRS, pairs_missing))
    return "".join(sign for sign, shown in signs if shown)


def _cell(run: Run) -> dict[str, Any]:
    """What must be equal on a board: the configuration without router and seed, for dense without MoE too."""
    settings = {name: value for name, value in settings_of(run).items() if not name.startswith("router.")}
    return _without_moe(settings) if run["config.router.name"] == DENSE else settings


def _without_moe(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in OF_MOE}


def _board(sparse: Sequence[Run], dense: Sequence[Run]) -> Board:
    runs = finished_last([*sparse, *dense])
    settings = _cell([*sparse, *dense][0])
    otherwise = any(_evaluated_otherwise(_router(run)) for run in runs)
    evaluation = SOME_EVALUATED_OTHERWISE if otherwise else EVALUATION
    subtitle = f"{evaluation}, {_weights(runs)}"
    board = Board(_title(settings), subtitle, settings, _rows(runs), ())
    return replace(board, notes=_notes(board, runs, len(sparse) + len(dense) - len(runs)))


def _weights(runs: Sequence[Run]) -> str:
    """Which weights were evaluated; records from before there was a choice do not say."""
    done = [run for run in runs if run["status"] == "done"]
    return " or ".join(
        WEIGHTS[name] for name in sorted({run.get("evaluation.weights", "raw") for run in done} or {"raw"})
    )


def _rows(runs: Sequence[Run]) -> list[Row]:
    """A row for each router and its settings: references, then by mean top-1, then those without one."""
    configurations: dict[str, list[Run]] = {}
    for run in runs:
        configurations.setdefault(key_of(_router(run)), []).append(run)
    routers = [_router(same[0]) for same in configurations.values()]
    dense = [run for run in runs if run["config.router.name"] == DENSE]
    rows = [row_of(_label(_router(same[0]), routers), same, dense) for same in configurations.values()]
    return sorted(rows, key=_rank)


def _rank(row: Row) -> tuple[int, bool, float, str]:
    reference = REFERENCES.index(row.router) if row.router in REFERENCES else len(REFERENCES)
    unknown = math.isnan(row.top1.mean)
    return reference, unknown, 0.0 if unknown else -row.top1.mean, row.label


def _router(run: Run) -> dict[str, Any]:
    prefix = "config.router."
    return {path.removeprefix(prefix): run[path] for path in sorted(run) if path.startswith(prefix)}


def _label(router: Settings, routers: Sequence[Settings]) -> str:
    """The router's name, and its settings that are not those of its file, or of a namesake on the board."""
    namesakes = [other for other in routers if other["name"] == router["name"]]
    names = sorted({*_differing(namesakes), *_not_of_its_file(router)})
    return " ".join([str(router["name"]), *(f"{name}={text_of(router.get(name))}" for name in names)])


def _not_of_its_file(router: Settings) -> list[str]:
    """The settings with another value than in `conf/router`, where the files of other people are not."""
    files = {file.stem: file for file in (conf_dir() / "router").glob("*.yaml")}
    if router["name"] not in files:
        return _evaluated_otherwise(router)
    usual = OmegaConf.to_container(OmegaConf.load(files[router["name"]]), resolve=False)
    assert isinstance(usual, dict)
    # What a file passes on from the settings that all routers share is in the board's title.
    own = {name: value for name, value in usual.items() if not str(value).startswith("${")}
    return [name for name in router if name in own and router[name] != own[name]]


def _evaluated_otherwise(router: Settings) -> list[str]:
    """The settings by which a router is evaluated otherwise than it is trained."""
    return [name for name in OF_EVALUATION if router.get(name) not in (None, False)]


def _differing(settings: Sequence[Settings]) -> list[str]:
    """The names whose value is not the same in all settings."""
    names = sorted({name for one in settings for name in one})
    return [name for name in names if len({key_of({name: one.get(name)}) for one in settings}) > 1]


def _title(settings: Settings) -> str:
    names = [text_of(settings["data.name"]), text_of(settings["model.name"])]
    if settings.get("model.weights") is not None:  # what starts from trained weights had more training
        names.append(f"from {text_of(settings['model.weights'])}")
    moe = _moe_title(settings) if "placement" in settings else ["dense only"]
    return " · ".join([*names, *moe, f"{text_of(settings['epochs'])} epochs"])


def _moe_title(settings: Settings) -> list[str]:
    placement, num_experts, capacity_factor, group = (settings.get(name) for name in MOE_IN_TITLE)
    blocks = ", ".join(map(text_of, placement)) if isinstance(placement, list) else None
    return [
        f"placement {text_of(placement)}" if blocks is None else f"blocks {blocks}",
        f"{text_of(num_experts)} experts",
        f"capacity factor {text_of(capacity_factor)}",
        "group image" if group == "image" else f"group of {text_of(group)} images",
    ]


def _tell_apart(board: Board, boards: Sequence[Board]) -> Board:
    """The board with a subtitle that names the settings in which it differs from boards of the same title."""
    namesakes = [other.settings for other in boards if other.title == board.title]
    differing = [f"{name}={text_of(board.settings.get(name))}" for name in _differing(namesakes)]
    return replace(board, subtitle=" · ".join([*differing, board.subtitle]))


def _notes(board: Board, runs: Sequence[Run], repeated: int) -> list[str]:
    signs = {sign for row in board.rows for sign in marks(row, board)}
    texts = {
        UNFINISHED: "not every run of this row finished: its numbers stand for those that did",
        MIXED: "the runs of this row differ in commit, device or versions",
        FEWER_PAIRS: "dense lacks some seeds of this row: minus dense is taken over those that both finished",
    }
    notes = [f"{sign} {text}" for sign, text in texts.items() if sign in signs]
    origins = {name: values for name, values in origins_of(runs).items() if len(values) > 1}
    notes += [f"The runs of this board differ in {name}: {', '.join(it)}" for name, it in origins.items()]
    oom = [f"{row.label} {row.oom}" for row in board.rows if row.oom]
    notes += [f"Failed runs that were out of memory: {', '.join(oom)}"] * bool(oom)
    # A copied folder is not a second replication.
    return notes + [f"Same configuration and seed twice, the later counts: {repeated}"] * (repeated > 0)


def _order(board: Board) -> tuple[list[tuple[int, float, str]], str]:
    return [_natural(board.settings.get(name)) for name in IN_TITLE], key_of(board.settings)


def _natural(value: Any) -> tuple[int, float, str]:
    """Numbers by size before texts by alphabet, so that 8 experts come before 16."""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, text_of(value))
