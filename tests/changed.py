"""`--changed-since REV`: the tests that a change can break, by what they import; the nearest come first."""

import ast
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("routerbench", "tests")
SECONDS = 60  # after which the tests that are farther away are left to `make test`

Distances = dict[Path, int]


class Changed:
    """A plugin of pytest that collects only what a change since a revision can break."""

    def __init__(self, since: str) -> None:
        self.distances = distances(changed_files(since))
        self.began, self.left = time.monotonic(), set[Path]()

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """No other file of tests."""
        is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
        return True if is_test and collection_path not in self.distances else None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.distances[item.path])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if time.monotonic() - self.began > SECONDS:
            self.left.add(item.path)
            pytest.skip("farther from the change than a minute reaches")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        reached = len(self.distances) - len(self.left)
        terminalreporter.line(f"{reached} of {len(self.distances)} files that the change can break were run")


def changed_files(since: str) -> set[Path]:
    """What differs from a revision, and what git does not know yet."""
    commands = (
        ["git", "diff", "--name-only", "--no-renames", since],
        ["git", "ls-files", "--others", "--exclude-standard"],
    )
    names = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        for command in commands
    ]
    return {ROOT / name for lines in names for name in lines}


def distances(changed: Iterable[Path]) -> Distances:
    """By file of tests that the changed files can break, over how many imports."""
    importers = imported_by()
    found: Distances = {}
    nearest = {path: 0 for path in changed if path.suffix == ".py"}
    nearest |= {test: 1 for path in changed if path.suffix != ".py" for test in naming(path)}
    while nearest:
        found |= nearest
        following = {
            importer: distance + 1 for path, distance in nearest.items() for importer in importers[path]
        }
        nearest = {path: distance for path, distance in following.items() if path not in found}
    return {
        path: distance for path, distance in found.items() if path.name.startswith("test_") and path.exists()
    }


@cache
def imported_by() -> dict[Path, set[Path]]:
    """By file of the package or the tests those that import it, or that a `conftest.py` is for."""
    files = {module_name(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    importers: dict[Path, set[Path]] = defaultdict(set)
    for path in files.values():
        for name in names_in(path):
            if name in files:
                importers[files[name]].add(path)
        if path.name == "conftest.py":
            importers[path].update(path.parent.rglob("test_*.py"))
    return importers


def module_name(path: Path) -> str:
    """The name by which it is imported; the folder of tests is on the path."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removeprefix("tests.").removesuffix(".__init__")


def names_in(path: Path) -> Iterator[str]:
    """What a file may import, wherever in its source; by hydra.utils what the configurations name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
            if node.module == "hydra.utils":
                yield from targets()


@cache
def targets() -> set[str]:
    """The modules of what stands in `_target_` anywhere in the configurations."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "conf").rglob("*.yaml"))
    return {name.rpartition(".")[0] for text in texts for name in re.findall(r"_target_: ([\w.]+)", text)}


def naming(path: Path) -> Iterator[Path]:
    """The files of tests that name a file which is not Python, its folder, or the choice that it is."""
    words = (path.name, f'"{path.parent.name}"', f"{path.parent.name}={path.stem}")
    for test in (ROOT / "tests").rglob("test_*.py"):
        text = test.read_text(encoding="utf-8")
        if any(word in text for word in words):
            yield test
