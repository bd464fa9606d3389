"""Boards and their sections -> parts of the page, within what a page can hold."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from routerbench.report.boards import Board, marks
from routerbench.report.figures.of_board import pictures_of
from routerbench.report.page.parts import Link, Part, RowPage
from routerbench.report.page.run_pages import row_page, run_page
from routerbench.report.rows import Row
from routerbench.report.runs import Run
from routerbench.report.table import Section

BOARDS_WITH_PICTURES = 12
RUNS_WITH_PAGES = 400
NARROWER = "ask for fewer boards with --where"


@dataclass
class _Listed:
    """What has a place on the page already: rows and runs by their runs' names, and all anchors."""

    rows: dict[tuple[str, ...], str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    anchors: set[str] = field(default_factory=set)

    def anchor(self, run: Run) -> str:
        """A new place for a run, whose fragment can be typed."""
        plain = "run-" + re.sub(r"[^A-Za-z0-9._-]+", "_", str(run["run_id"]))[:120]
        anchor, number = plain, 1
        while anchor in self.anchors:
            number += 1
            anchor = f"{plain}-{number}"
        self.anchors.add(anchor)
        self.runs[_name(run)] = anchor
        return anchor


def board_parts(boards: Sequence[Board], sections: Sequence[Section], delta: float) -> list[Part]:
    """A part for each board and its section, the first of them with pictures and the pages of their runs.

    `delta`: the difference, a fraction, within which two rows count as equivalent.
    """
    listed = _Listed()
    return [
        _part(number, board, section, delta, listed)
        for number, (board, section) in enumerate(zip(boards, sections, strict=True), 1)
    ]


def _part(number: int, board: Board, section: Section, delta: float, listed: _Listed) -> Part:
    pages = _row_pages(number, board, listed)
    links = {}
    for place, row in enumerate(board.rows):
        if (anchor := listed.rows.get(_names(row))) is not None:
            name = f"{row.label} {marks(place, board)}".rstrip()
            links[name] = Link(_line_anchor(number, place), anchor)
    drawn = number <= BOARDS_WITH_PICTURES
    pictures = pictures_of(board, delta) if drawn else []
    without_page = sum(_name(run) not in listed.runs for row in board.rows for run in row.runs)
    left_out = [
        f"Its pictures are left out, as those of all after the first {BOARDS_WITH_PICTURES} boards: {NARROWER}."
    ]
    runs = [
        f"Pages of {without_page} of its runs are left out, as the page holds {RUNS_WITH_PAGES}: {NARROWER}."
    ]
    return Part(section, pictures, pages, links, [*left_out * (not drawn), *runs * (without_page > 0)])


def _row_pages(number: int, board: Board, listed: _Listed) -> list[RowPage]:
    """Pages of the rows that no board before had, as far as there is room."""
    pages = []
    for place, row in enumerate(board.rows):
        room = RUNS_WITH_PAGES - len(listed.runs)
        new = [run for run in row.runs if _name(run) not in listed.runs][:room]
        if new:
            anchor = f"row-{number}-{place + 1}"
            listed.rows[_names(row)] = anchor
            runs = [run_page(run, board, listed.anchor(run)) for run in new]
            pages.append(row_page(row, board, anchor, _line_anchor(number, place), runs))
    return pages


def _line_anchor(number: int, place: int) -> str:
    return f"line-{number}-{place + 1}"


def _names(row: Row) -> tuple[str, ...]:
    return tuple(_name(run) for run in row.runs)


def _name(run: Run) -> str:
    """One name for one run: two sources, or two folders, may have run ids in common."""
    return f"{run['run_id']} {run.get('folder', '')}"
