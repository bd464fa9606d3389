"""Records of runs -> leaderboards: runs, rows, boards, tables, then one file for each way to show them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routerbench.report.boards.board import Board, build_boards
    from routerbench.report.options import Options
    from routerbench.report.runs.run import read_runs
    from routerbench.report.write import write_report

__all__ = ["Board", "Options", "build_boards", "read_runs", "write_report"]

_HOME = {
    "Board": "boards.board",
    "Options": "options",
    "build_boards": "boards.board",
    "read_runs": "runs.run",
    "write_report": "write",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the words of the command are read without numpy and scipy."""
    if name not in _HOME:
        raise AttributeError(f"module 'routerbench.report' has no attribute {name!r}")
    return getattr(import_module(f"routerbench.report.{_HOME[name]}"), name)
