"""A report's answer in the terminal and in files."""

from pathlib import Path

from rich.console import Console

from routerbench.paste import pasted_file
from routerbench.records import UnwritableError, write_text
from routerbench.report.answer import Answer, boards_answer, boards_of, claims_answer
from routerbench.report.boards import sheet
from routerbench.report.null_check import check_null
from routerbench.report.options import Options
from routerbench.report.runs.sources import read
from routerbench.report.tables.latex import latex
from routerbench.report.tables.markdown import markdown
from routerbench.report.tables.terminal import print_sections


def write_report(options: Options, console: Console) -> int:
    """Print the report that the options ask for and write it in all formats; 1 where the null check fails.

    ValueError without a finished run, for a question that the runs cannot answer, or without the two marker
    lines in the file that it is pasted into.
    """
    found = read(options)
    if options.check_null:
        check = check_null(boards_of(found, options))
        print_sections([check.section], [], console)
        return check.exit_code
    answer = claims_answer(found, options) if options.claims else boards_answer(found, options)
    pasted = {} if options.paste is None else _pasted(answer, options.paste)
    _make_folder(options.out)
    print_sections(answer.sections, answer.remarks, console)  # before the page, which takes as long again
    files = _claims_files(answer) if options.claims else _board_files(answer)
    for path, text in ({options.out / name: text for name, text in files.items()} | pasted).items():
        _write(path, text)
    return 0


def _board_files(answer: Answer) -> dict[str, str]:
    from routerbench.report.page import beyond_parts, board_parts, page  # a second, after the boards are read

    parts = [*board_parts(answer.boards, answer.of_boards), *beyond_parts(answer.boards, answer.beyond)]
    return {
        "leaderboard.csv": sheet.csv(answer.boards),
        "LEADERBOARD.md": "# Leaderboard\n\n" + markdown(answer.sections, answer.remarks, "##"),
        "leaderboard.tex": latex(answer.sections, answer.remarks),
        "report.html": page("Which router is better, at equal cost?", parts, answer.runs, answer.remarks),
    }


def _claims_files(answer: Answer) -> dict[str, str]:
    from routerbench.report.page import Part, page

    return {
        "CLAIMS.md": "# Claims of the studies\n\n" + markdown(answer.sections, answer.remarks, "##"),
        "claims.tex": latex(answer.sections, answer.remarks),
        "claims.html": page(
            "What the studies claim, and what these runs say",
            [Part(section) for section in answer.beyond],
            answer.runs,
            answer.remarks,
        ),
    }


def _pasted(answer: Answer, document: Path) -> dict[Path, str]:
    """The document with the boards, or with the claims, between its marker lines."""
    lines = markdown(answer.of_boards or answer.beyond, answer.remarks, "###")
    return {document.resolve(): pasted_file(document, lines, "board" if answer.boards else "claim")}


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except UnwritableError as error:
        raise ValueError(f"{error}; give another folder by --out") from error


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out={out} cannot be made: {error.strerror}; give another folder") from error
