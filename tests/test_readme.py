"""README and docs keep their word: boards and claims are those of the records, and the code runs."""

import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from routerbench.report import Options, write_report

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CODE = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


PUBLISHED = [
    ("README.md", False, ["LEADERBOARD.md", "leaderboard.csv", "leaderboard.tex"]),
    ("docs/report.md", True, ["CLAIMS.md", "claims.tex"]),
]


@pytest.mark.parametrize(("document", "claims", "names"), PUBLISHED)
def test_what_is_pasted_is_that_of_the_records(
    document: str, claims: bool, names: list[str], tmp_path: Path
) -> None:
    results = shutil.copytree(ROOT / "results" / "pocket", tmp_path / "pocket")
    pasted = Path(shutil.copy(ROOT / document, tmp_path))
    for name in names:
        (results / name).unlink()
    write_report(Options(results, results, claims=claims, paste=pasted), Console(quiet=True))
    assert pasted.read_text(encoding="utf-8") == (ROOT / document).read_text(encoding="utf-8")
    for name in names:
        assert (results / name).read_bytes() == (ROOT / "results" / "pocket" / name).read_bytes()


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
