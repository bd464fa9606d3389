"""Records of runs -> leaderboards: runs, rows, boards, then one file for each way to show them."""

from routerbench.report.boards import Board, build_boards
from routerbench.report.write import write_report

__all__ = ["Board", "build_boards", "write_report"]
