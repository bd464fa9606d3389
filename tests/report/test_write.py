import re
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from routerbench.report import Options, write_report

WriteRun = Callable[..., Path]


def quiet() -> Console:
    return Console(file=StringIO(), width=120)


def test_files_and_terminal(results: Path, write_run: WriteRun) -> None:
    write_run("soft", 0, 0.8)
    console = quiet()
    write_report(Options(results, results), console)
    assert isinstance(console.file, StringIO)
    assert "soft" in console.file.getvalue()
    assert (results / "LEADERBOARD.md").read_text().startswith("# Leaderboard\n\n## landcover32 · ")
    assert (results / "leaderboard.csv").read_text().startswith("board,title,router,metric,score_mean,")
    assert "% Needs" in (results / "leaderboard.tex").read_text()
    names = ["LEADERBOARD.md", "leaderboard.csv", "leaderboard.tex", "report.html", "runs"]
    assert sorted(path.name for path in results.iterdir()) == names


def test_the_same_records_give_the_same_bytes(results: Path, write_run: WriteRun, tmp_path: Path) -> None:
    for seed in range(3):
        for router in ("dense", "soft", "hash"):
            write_run(router, seed, 0.1 * seed + 0.3)
    write_run("soft", 4, 0.8).write_text("{")
    write_report(Options(results, results), quiet())
    first = {path.name: path.read_bytes() for path in results.glob("*.*")}
    write_report(Options(results, results), quiet())
    assert {path.name: path.read_bytes() for path in results.glob("*.*")} == first
    # Another place, other folder names, thus another order.
    moved = tmp_path / "moved"
    for number, path in enumerate(sorted(results.glob("runs/00*"), reverse=True)):
        shutil.copytree(path, moved / "runs" / (path.name if path.name == "009" else f"{number}x"))
    write_report(Options(moved, moved), quiet())
    assert {path.name: path.read_bytes() for path in moved.glob("*.*")} == first


def test_paste(results: Path, write_run: WriteRun, tmp_path: Path) -> None:
    write_run("soft", 0, 0.8)
    readme = tmp_path / "README.md"
    readme.write_bytes(b"# Read\r\n<!-- board:begin -->\nold\n<!-- board:end -->\nrest\n")
    write_report(Options(results, results, paste=readme), quiet())
    text = readme.read_bytes().decode()
    assert text.startswith("# Read\r\n<!-- board:begin -->\n### landcover32 · ")
    assert text.endswith("on other data.\n<!-- board:end -->\nrest\n")
    assert "\nold\n" not in text


def test_paste_keeps_a_link(results: Path, write_run: WriteRun, tmp_path: Path) -> None:
    write_run("soft", 0, 0.8)
    (tmp_path / "real.md").write_text("<!-- board:begin -->\n<!-- board:end -->\n")
    (tmp_path / "link.md").symlink_to("real.md")
    write_report(Options(results, results, paste=tmp_path / "link.md"), quiet())
    assert (tmp_path / "link.md").is_symlink()
    assert "### landcover32" in (tmp_path / "real.md").read_text()


def test_paste_without_markers_writes_nothing(results: Path, write_run: WriteRun, tmp_path: Path) -> None:
    write_run("soft", 0, 0.8)
    readme = tmp_path / "README.md"
    readme.write_text("# Read\n")
    message = (
        f"paste={str(readme)!r} does not hold the lines <!-- board:begin --> and <!-- board:end --> "
        "once each, in this order: add them"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write_report(Options(results, results, paste=readme), quiet())
    assert [path.name for path in results.iterdir()] == ["runs"]


def test_paste_into_nothing(results: Path, write_run: WriteRun, tmp_path: Path) -> None:
    write_run("soft", 0, 0.8)
    missing = tmp_path / "missing.md"
    message = f"paste={str(missing)!r} is not a file: give the Markdown file that shows the boards"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write_report(Options(results, results, paste=missing), quiet())


@pytest.mark.parametrize("folder", ["results", "missing"])
def test_no_finished_run(results: Path, folder: str) -> None:
    where = results.parent / folder
    message = (
        f"results={str(where)!r} holds no finished run: give the folder that holds runs/<run_id>/record.json"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write_report(Options(where, where), quiet())


def test_damaged_records_are_named(results: Path, write_run: WriteRun) -> None:
    write_run("soft", 0, 0.8)
    write_run("soft", 1, 0.8, run_id="broken").write_text("{")
    write_report(Options(results, results), quiet())
    assert (
        (results / "LEADERBOARD.md")
        .read_text()
        .endswith("\n- Left out, as it cannot be read: runs/broken/record.json\n")
    )


def test_only_damaged_records(results: Path, write_run: WriteRun) -> None:
    write_run("soft", 1, 0.8, run_id="broken").write_text("{")
    message = (
        f"results={str(results)!r} holds no finished run: "
        "give the folder that holds runs/<run_id>/record.json; cannot be read: runs/broken/record.json"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write_report(Options(results, results), quiet())


def test_a_file_is_written_whole_or_not(
    results: Path, write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run("soft", 0, 0.8)
    (results / "leaderboard.csv").write_text("before")

    def interrupted(self: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", interrupted)
    text = f"{results / 'leaderboard.csv'} cannot be written: no space left; give another folder by --out"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        write_report(Options(results, results), quiet())
    assert (results / "leaderboard.csv").read_text() == "before"
    assert sorted(path.name for path in results.iterdir()) == ["leaderboard.csv", "runs"]


def test_a_name_that_is_no_unicode_is_spelt_out(results: Path, write_run: WriteRun) -> None:
    write_run("half \ud800", 0, 0.8)
    write_report(Options(results, results), quiet())
    assert ",half \\ud800," in (results / "leaderboard.csv").read_text(encoding="utf-8")


def test_files_go_where_they_are_wanted(results: Path, write_run: WriteRun, tmp_path: Path) -> None:
    write_run("soft", 0, 0.8)
    write_run("hash", 0, 0.7)
    write_report(Options(results, tmp_path / "a" / "b", where={"router": ("hash",)}), quiet())
    assert [path.name for path in results.iterdir()] == ["runs"]
    text = (tmp_path / "a" / "b" / "LEADERBOARD.md").read_text()
    assert ("| hash |" in text, "| soft |" in text) == (True, False)


def test_a_folder_that_cannot_be_made_is_one_line(results: Path, write_run: WriteRun, tmp_path: Path) -> None:
    write_run("soft", 0, 0.8)
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    text = f"--out={out} cannot be made: Not a directory; give another folder"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        write_report(Options(results, out), quiet())


def test_many_damaged_records_are_one_line(results: Path, write_run: WriteRun) -> None:
    write_run("soft", 0, 0.8)
    for number in range(30):
        write_run("soft", number, 0.8, run_id=f"broken{number:02d}").write_text("{")
    write_report(Options(results, results), quiet())
    (line,) = [
        line for line in (results / "LEADERBOARD.md").read_text().splitlines() if "cannot be read" in line
    ]
    assert line.endswith("runs/broken19/record.json and 10 more")


def test_what_many_boards_add_up_to_is_said(results: Path, write_run: WriteRun) -> None:
    for seed in range(3):
        for placement in ("last_2", "every_2"):
            for router in ("dense", "soft"):
                write_run(
                    router, seed, 0.5 + 0.01 * seed + 0.02 * seed * (router == "soft"), placement=placement
                )
    write_run("dense", 0, 0.5, epochs=90)  # a board on which nothing is compared
    write_report(Options(results, results), quiet())
    # 1 - 0.95 * 0.95
    assert "2 boards are tested, each with its own alpha of 0.05" in (results / "LEADERBOARD.md").read_text()
    assert "up to 10 % of such reports" in (results / "LEADERBOARD.md").read_text()
