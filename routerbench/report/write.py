"""Runs -> boards in the terminal and in files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from routerbench.paste import pasted_file
from routerbench.records import write_text
from routerbench.report import markdown, sheet
from routerbench.report.board_tables import LEGEND, section_of
from routerbench.report.boards import build_boards
from routerbench.report.cells import checked_by
from routerbench.report.metric import TOP1, metric_of
from routerbench.report.runs import read_runs
from routerbench.report.terminal import print_sections


@dataclass(frozen=True)
class Question:
    """What a report is asked: what its rows differ in, the accuracy to compare, and `delta` in points."""

    by: Sequence[str] = ("router",)
    metric: str = TOP1
    delta: float = 0.3


def write_report(results: Path, question: Question, paste: Path | None, console: Console) -> None:
    """Print the boards of a results folder, write them into it in all formats, paste them into a file.

    ValueError without a finished run below the folder, for a question that its runs cannot answer, or
    without the two marker lines in the file.
    """
    found = read_runs(results)
    if not found.runs:
        raise ValueError(_nothing_found(results, found.damaged))
    by, metric = checked_by(question.by, found.runs), metric_of(question.metric, found.runs)
    boards = build_boards(found.runs, by, metric, question.delta / 100)
    sections = [section_of(board) for board in boards]
    remarks = [*LEGEND, *(f"Left out, as it cannot be read: {path}" for path in found.damaged)]
    files = {
        results / "leaderboard.csv": sheet.csv(boards),
        results / "LEADERBOARD.md": "# Leaderboard\n\n" + markdown.markdown(sections, remarks, "##"),
    }
    if paste is not None:
        files[paste.resolve()] = pasted_file(paste, markdown.markdown(sections, remarks, "###"), "board")
    print_sections(sections, remarks, console)
    for path, text in files.items():
        write_text(path, text)


def _nothing_found(results: Path, damaged: Sequence[str]) -> str:
    unread = f"; cannot be read: {', '.join(damaged)}" if damaged else ""
    return (
        f"results={str(results)!r} holds no finished run: "
        f"give the folder that holds runs/<run_id>/record.json{unread}"
    )
