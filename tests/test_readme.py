"""README keeps its word: the board is that of the records, and its code runs."""

import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from routerbench.report import Options, write_report

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CODE = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_board_is_that_of_the_records(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results" / "pocket", tmp_path / "pocket")
    pasted = shutil.copy(README, tmp_path)
    write_report(Options(tmp_path / "pocket", tmp_path / "pocket", paste=Path(pasted)), Console(quiet=True))
    assert Path(pasted).read_text(encoding="utf-8") == README.read_text(encoding="utf-8")
    for name in ("LEADERBOARD.md", "leaderboard.csv", "leaderboard.tex"):
        assert (tmp_path / "pocket" / name).read_bytes() == (ROOT / "results" / "pocket" / name).read_bytes()


def test_records_are_published_with_their_configurations() -> None:
    runs = list((ROOT / "results" / "pocket" / "runs").iterdir())
    assert len(runs) == 27
    for run in runs:
        assert {"config.yaml", "record.json"} <= {path.name for path in run.iterdir()}


def test_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = next(code for code in CODE if "rb.sparsify" in code)
    names: dict[str, object] = {}
    exec(notebook, names)
    assert tuple(names["logits"].shape) == (2, 1000)  # pyright: ignore[reportAttributeAccessIssue]
