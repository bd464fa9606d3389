"""What a report answers to a question, before it is shown: boards with what follows from them, or claims."""

from collections.abc import Sequence
from dataclasses import dataclass

from routerbench.printable import some
from routerbench.report.across.equal_cost import equal_cost_sections
from routerbench.report.across.gains import across_sections
from routerbench.report.boards import board_tables, pair_tables
from routerbench.report.boards.board import Board, build_boards
from routerbench.report.boards.board_tables import section_of
from routerbench.report.boards.cells import checked_by
from routerbench.report.boards.rule import ALPHA
from routerbench.report.claims import claims_section
from routerbench.report.options import Options
from routerbench.report.runs.metric import metric_of
from routerbench.report.runs.run import Found, Run
from routerbench.report.tables.table import Section


@dataclass(frozen=True)
class Answer:
    """All that is shown of some runs: a section for each board, then those on many boards at once."""

    runs: Sequence[Run]
    boards: Sequence[Board]
    of_boards: Sequence[Section]
    beyond: Sequence[Section]
    remarks: Sequence[str]

    @property
    def sections(self) -> Sequence[Section]:
        return [*self.of_boards, *self.beyond]


def boards_answer(found: Found, options: Options) -> Answer:
    """Boards, what is equal at equal cost, and what holds across boards."""
    boards = boards_of(found, options)
    beyond = [*equal_cost_sections(boards), *across_sections(boards)]
    remarks = [*board_tables.legend_of(boards), *pair_tables.LEGEND, *_of_many(boards), *_left_out(found)]
    return Answer(found.runs, boards, [section_of(board) for board in boards], beyond, remarks)


def claims_answer(found: Found, options: Options) -> Answer:
    """What the runs say of the claims of the studies."""
    metric = metric_of(options.metric, found.runs)
    section = claims_section(found.runs, metric, options.delta / 100)
    return Answer(found.runs, [], [], [section], _left_out(found))


def boards_of(found: Found, options: Options) -> list[Board]:
    """The boards that the options ask for; ValueError for a question that the runs cannot answer."""
    by, metric = checked_by(options.by, found.runs), metric_of(options.metric, found.runs)
    return build_boards(found.runs, by, metric, options.delta / 100)


def _of_many(boards: Sequence[Board]) -> list[str]:
    """What the error rates of several boards add up to."""
    tested = sum(board.pairs.num_tested > 0 for board in boards)
    most = 100 * (1 - (1 - ALPHA) ** tested)
    text = (
        f"{tested} boards are tested, each with its own alpha of {ALPHA}: with nothing behind them up to "
        f"{most:.0f} % of such reports claim something on some board. Ask one question at a time by --where."
    )
    return [text] * (tested > 1)


def _left_out(found: Found) -> list[str]:
    damaged = [f"Left out, as it cannot be read: {some(found.damaged)}"] if found.damaged else []
    return [*found.remarks, *damaged]
