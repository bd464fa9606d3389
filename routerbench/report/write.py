"""Runs -> boards in the terminal and in files."""

from pathlib import Path

from rich.console import Console

from routerbench.paste import pasted_file
from routerbench.records import write_text
from routerbench.report import latex, markdown, sheet
from routerbench.report.board_tables import LEGEND, section_of
from routerbench.report.boards import build_boards
from routerbench.report.cells import checked_by
from routerbench.report.metric import metric_of
from routerbench.report.options import Options
from routerbench.report.sources import read
from routerbench.report.terminal import print_sections


def write_report(options: Options, console: Console) -> None:
    """Print the boards of the chosen runs, write them in all formats, paste them into a file.

    ValueError without a finished run, for a question that the runs cannot answer, or without the two marker
    lines in the file.
    """
    found = read(options)
    by, metric = checked_by(options.by, found.runs), metric_of(options.metric, found.runs)
    boards = build_boards(found.runs, by, metric, options.delta / 100)
    sections = [section_of(board) for board in boards]
    remarks = [
        *LEGEND,
        *found.remarks,
        *(f"Left out, as it cannot be read: {path}" for path in found.damaged),
    ]
    files = {
        options.out / "leaderboard.csv": sheet.csv(boards),
        options.out / "leaderboard.tex": latex.latex(sections, remarks),
        options.out / "LEADERBOARD.md": "# Leaderboard\n\n" + markdown.markdown(sections, remarks, "##"),
    }
    if options.paste is not None:
        pasted = markdown.markdown(sections, remarks, "###")
        files[options.paste.resolve()] = pasted_file(options.paste, pasted, "board")
    _make_folder(options.out)
    print_sections(sections, remarks, console)
    for path, text in files.items():
        write_text(path, text)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out={out} cannot be made: {error.strerror}; give another folder") from error
