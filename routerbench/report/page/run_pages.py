"""Rows of a board -> the pages of their configurations and runs."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from routerbench.figures.order import in_natural_order
from routerbench.report.boards.board import Board
from routerbench.report.boards.rows import Row
from routerbench.report.page.found_after import studies_of
from routerbench.report.page.parts import Fact, Routing, RowPage, RunPage
from routerbench.report.runs.run import Run, Settings, text_of
from routerbench.report.tables.table import NOTHING

TEXT_CHARACTERS = 2_000  # of one value
ERROR_CHARACTERS = 6_000  # the end of a traceback says what happened
ROUTING = re.compile(r"metrics\.routing/(?:(.+)/)?([^/]+)")
COMMANDS = ("provenance.repeat", "provenance.command")  # what repeats this run, or what ran it among others
ELSEWHERE = ("run_id", "status", "error", "schema", "folder", "evaluations", *COMMANDS)
INSPECTED = "inspect/index.html"
VERSIONS = "provenance.versions."
GROUPS = ("config.", "metrics.", "cost.", "provenance.")


def row_page(row: Row, board: Board, anchor: str, line_anchor: str, runs: Sequence[RunPage]) -> RowPage:
    """The page of a row: what its board's rows do not have in common first."""
    common = {name: value for name, value in row.settings.items() if _is_common(name, value, board)}
    own = {name: value for name, value in row.settings.items() if name not in common}
    return RowPage(anchor, line_anchor, row.label, settings_facts(own), settings_facts(common), runs)


def run_page(run: Run, board: Board, anchor: str) -> RunPage:
    """The page of a run."""
    metrics = [path for path in run if path.startswith("metrics.") and not ROUTING.fullmatch(path)]
    origins = [path for path in run if path.startswith("provenance.") and path not in COMMANDS]
    rest = [path for path in run if not path.startswith(GROUPS) and path not in ELSEWHERE]
    return RunPage(
        anchor=anchor,
        run_id=str(run["run_id"]),
        seed=text_of(run["config.seed"]),
        status=str(run["status"]),
        score=_score(run, board),
        error=_error(run.get("error")),
        command=next((text_of(run[path]) for path in COMMANDS if path in run), NOTHING),
        metrics=_facts(run, metrics, "metrics."),
        routing=_routing(run),
        studies=studies_of(run),
        pictures=_pictures(run),
        cost=_facts(run, [path for path in run if path.startswith("cost.")], "cost."),
        provenance=[
            *_facts(run, [path for path in origins if not path.startswith(VERSIONS)], "provenance."),
            *_versions(run),
        ],
        rest=_facts(run, rest, ""),
    )


def settings_facts(settings: Settings) -> list[Fact]:
    """Settings as they are typed on the command line."""
    return [Fact(name, _cut(text_of(value))) for name, value in sorted(settings.items())]


def _is_common(name: str, value: Any, board: Board) -> bool:
    return name in board.settings and board.settings[name] == value


def _score(run: Run, board: Board) -> str:
    value = board.metric.of(run)
    return NOTHING if value is None else f"{100 * float(value):.2f}"


def _versions(run: Run) -> list[Fact]:
    versions = [
        f"{path.removeprefix(VERSIONS)} {text_of(run[path])}" for path in run if path.startswith(VERSIONS)
    ]
    return [Fact("versions", ", ".join(versions))] if versions else []


def _routing(run: Run) -> Routing:
    found = [match for path in run if (match := ROUTING.fullmatch(path))]
    layers = sorted({match[1] for match in found if match[1]}, key=in_natural_order)
    paths = [("all layers", "metrics.routing/"), *((layer, f"metrics.routing/{layer}/") for layer in layers)]
    names = dict.fromkeys(match[2] for match in found)
    lines = [(name, [_in_short(run.get(path + name)) for _, path in paths]) for name in names]
    return Routing([layer for layer, _ in paths], lines)


def _pictures(run: Run) -> str:
    """Where the page of `routerbench inspect` is in the results folder, if it is there."""
    folder = run.get("folder")
    if folder is None or not (folder / INSPECTED).is_file():
        return ""
    return f"runs/{folder.name}/{INSPECTED}"


def _in_short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | int) else NOTHING


def _error(error: Any) -> list[str]:
    text = "" if error is None else text_of(error)
    lines = text[-ERROR_CHARACTERS:].splitlines()
    return ["… (its end)", *lines] if len(text) > ERROR_CHARACTERS else lines


def _facts(run: Run, paths: Iterable[str], prefix: str) -> list[Fact]:
    return [Fact(path.removeprefix(prefix), _cut(_text(run[path]))) for path in paths]


def _text(value: Any) -> str:
    """A number to six digits, anything else as it is typed."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else text_of(value)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else f"{text[:TEXT_CHARACTERS]}… ({len(text):,} characters)"
