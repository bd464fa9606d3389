"""Records -> boards in the terminal and in files."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from routerbench.paste import pasted_file
from routerbench.records import read_records, write_text
from routerbench.report import markdown, sheet
from routerbench.report.boards import build_boards
from routerbench.report.terminal import print_boards


def write_report(results: Path, paste: Path | None, console: Console) -> None:
    """Print the boards of a results folder, write them into it as CSV and Markdown, paste them into a file.

    ValueError without a finished run below the folder, or without the two marker lines in the file.
    """
    records = read_records(results)
    damaged = [_below(results, path) for path in records.attrs["damaged"]]
    if records.empty:
        raise ValueError(_nothing_found(results, damaged))
    boards = build_boards(records)
    remarks = [f"Left out, as it cannot be read: {path}" for path in damaged]
    files = {
        results / "leaderboard.csv": sheet.csv(boards),
        results / "LEADERBOARD.md": "# Leaderboard\n\n" + markdown.markdown(boards, remarks, "##"),
    }
    if paste is not None:
        files[paste.resolve()] = pasted_file(paste, markdown.markdown(boards, remarks, "###"), "board")
    print_boards(boards, remarks, console)
    for path, text in files.items():
        write_text(path, text)


def _nothing_found(results: Path, damaged: Sequence[str]) -> str:
    unread = f"; cannot be read: {', '.join(damaged)}" if damaged else ""
    return (
        f"results={str(results)!r} holds no finished run: "
        f"give the folder that holds runs/<run_id>/record.json{unread}"
    )


def _below(results: Path, path: str) -> str:
    """The path as seen from the results folder, which makes the report the same wherever the folder lies."""
    return Path(os.path.relpath(path, results)).as_posix()
