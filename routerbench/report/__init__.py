"""Records of runs -> leaderboards: runs, rows, boards, tables, then one file for each way to show them."""

from routerbench.report.boards import Board, build_boards
from routerbench.report.runs import read_runs
from routerbench.report.write import Question, write_report

__all__ = ["Board", "Question", "build_boards", "read_runs", "write_report"]
