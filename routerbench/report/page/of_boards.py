"""Boards and their sections -> parts of the page, within what a page can hold."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from routerbench.report.boards.board import Board, marks
from routerbench.report.boards.rows import Row
from routerbench.report.figures.cost import cost_pictures
from routerbench.report.figures.critical_difference import critical_difference_pictures
from routerbench.report.figures.of_board import pictures_of
from routerbench.report.figures.published import published_pictures
from routerbench.report.page.parts import Link, Part, RowPage, RunPage
from routerbench.report.page.run_pages import row_page, run_page
from routerbench.report.runs.run import Run
from routerbench.report.tables.table import Section

BOARDS_WITH_PICTURES = 12
CHARACTERS = 700_000  # of the pages of all runs together, which is that of some 200
NARROWER = "ask for fewer boards with --where"


@dataclass
class _Listed:
    """What has a place on the page already: rows and runs by their runs' names, and all anchors."""

    rows: dict[tuple[str, ...], str] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)
    characters: int = 0

    def anchor(self, run: Run) -> str:
        """A new place for a run, whose fragment can be typed."""
        plain = "run-" + re.sub(r"[^A-Za-z0-9._-]+", "_", str(run["run_id"]))[:120]
        anchor, number = plain, 1
        while anchor in self.anchors:
            number += 1
            anchor = f"{plain}-{number}"
        self.anchors.add(anchor)
        return anchor

    def add(self, run: Run, board: Board) -> RunPage | None:
        """The page of a run that has none yet, while there is room."""
        if _name(run) in self.runs or self.characters >= CHARACTERS:
            return None
        page = run_page(run, board, self.anchor(run))
        self.runs.add(_name(run))
        self.characters += page.characters
        return page


def board_parts(boards: Sequence[Board], sections: Sequence[Section]) -> list[Part]:
    """A part for each board and its section, the first of them with pictures and the pages of their runs."""
    listed = _Listed()
    return [
        _part(number, board, section, listed)
        for number, (board, section) in enumerate(zip(boards, sections, strict=True), 1)
    ]


def beyond_parts(boards: Sequence[Board], sections: Sequence[Section]) -> list[Part]:
    """A part for each section on many boards, and one with the pictures of accuracy against cost."""
    drawn = boards[:BOARDS_WITH_PICTURES]
    own = [*cost_pictures(drawn), *critical_difference_pictures(boards)]
    left_out = [f"Only what stands on the first {BOARDS_WITH_PICTURES} boards is drawn: {NARROWER}."]
    pictures = Part(
        Section("Accuracy against cost, beside the published", []),
        [*own, *published_pictures()],
        left_out=left_out * (len(boards) > len(drawn)),
    )
    return [*map(Part, sections), pictures]


def _part(number: int, board: Board, section: Section, listed: _Listed) -> Part:
    pages = _row_pages(number, board, listed)
    links = {}
    for place, row in enumerate(board.rows):
        if (anchor := listed.rows.get(_names(row))) is not None:
            name = f"{row.label} {marks(place, board)}".rstrip()
            links[name] = Link(_line_anchor(number, place), anchor)
    drawn = number <= BOARDS_WITH_PICTURES
    pictures = pictures_of(board) if drawn else []
    without_page = sum(_name(run) not in listed.runs for row in board.rows for run in row.runs)
    left_out = [f"Only the first {BOARDS_WITH_PICTURES} boards have pictures: {NARROWER}."]
    runs = [f"{without_page} of its runs have no page here, as there is no room: {NARROWER}."]
    return Part(section, pictures, pages, links, [*left_out * (not drawn), *runs * (without_page > 0)])


def _row_pages(number: int, board: Board, listed: _Listed) -> list[RowPage]:
    """Pages of the rows that no board before had, as far as there is room."""
    pages = []
    for place, row in enumerate(board.rows):
        runs = [page for run in row.runs if (page := listed.add(run, board)) is not None]
        if runs:
            anchor = f"row-{number}-{place + 1}"
            listed.rows[_names(row)] = anchor
            pages.append(row_page(row, board, anchor, _line_anchor(number, place), runs))
    return pages


def _line_anchor(number: int, place: int) -> str:
    return f"line-{number}-{place + 1}"


def _names(row: Row) -> tuple[str, ...]:
    return tuple(_name(run) for run in row.runs)


def _name(run: Run) -> str:
    """One name for one run: two sources, or two folders, may have run ids in common."""
    return f"{run['run_id']} {run.get('folder', '')}"
