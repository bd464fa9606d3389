"""The commit that a record names."""

import subprocess
from pathlib import Path

import pytest
import torch

from routerbench import provenance as module
from routerbench.provenance import provenance


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_checkout_names_its_commit_and_says_where_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit_of(checkout: Path) -> str | None:
        monkeypatch.setattr(module, "__file__", str(checkout / "routerbench" / "provenance.py"))
        return provenance(torch.device("cpu"))["commit"]

    package = tmp_path / "routerbench"
    package.mkdir()
    assert commit_of(tmp_path) is None
    (package / "a.py").write_text("1\n")
    git(tmp_path, "init")
    git(tmp_path, "add", "routerbench")
    git(tmp_path, "commit", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("not of the program\n")
    assert commit_of(tmp_path) == commit
    (package / "a.py").write_text("2\n")
    assert commit_of(tmp_path) == f"{commit}+changes"
    assert commit_of(package) is None  # installed into a folder of someone's own checkout
