"""Plant small bugs one at a time, and see whether the cheap tests catch them: `make mutants`.

A bug is written into a copy of the package. A process forked from this one, which has imported what is slow
to import, runs the tests of the copy: those with the name of the changed file, those of its room, then those
that import it. Cheap are tests that take less than two seconds of a processor where nothing is wrong.
"""

import argparse
import ast
import ctypes
import hashlib
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import psutil
import pytest
from changed import distances
from costs import spent

ROOT = Path(__file__).parents[1]
# What is judged: folders and files of the package, by room.
ROOMS = {
    "moe": "moe",
    "routers": "routers",
    "stats": "stats",
    "identity": "config schema identity checks",
    "ledger": "ledger records",
    "data": "data draws",
    "training": "step train schedules optim mixing task_loss ranks parallel",
    "state": "state checkpoint weights autotune load untrusted signals run_files",
    "measured": "metrics costs footprint evaluate modes fewshot linear_probe maps timing commands/costs",
    "parts": "parts build models experiment measure attention arrays device",
    "program": "cli refusal paste found provenance printable progress",
    "sweep": "sweep compose commands/train commands/cells_of",
    "report": "report commands/report",
    "evaluations": "evaluations commands/eval commands/opening",
    "inspection": "inspection layout commands/inspect",
    "overview": "overview commands/plan commands/status",
    "tracking": "tracking commands/sync commands/sweep_to_wandb",
}
# Tests of a room that have other names.
ALSO = {
    "moe": "routers router_contract router_properties",
    "routers": "router_contract router_properties",
    "identity": "task_loss",
    "state": "open_run",
}
STRICT = ("moe", "routers", "stats", "identity", "ledger")  # nine in ten are to be caught; elsewhere eight

SLOW_IMPORTS = (
    "torch._dynamo torchvision.transforms.v2 timm.data scipy.stats pandas matplotlib.pyplot hydra.main "
    "jinja2 rich.console wandb hypothesis jaxtyping beartype"
)
CHEAP_SECONDS = 2.0
HANGS_AFTER_SECONDS = 60
BE_SUBREAPER = 36  # of prctl: what a killed process leaves becomes a child of this one
MEMORY_BYTES = 8 * 2**30  # a bug may fill a list for ever

SWAPS = {ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.Eq: ast.NotEq, ast.Is: ast.IsNot, ast.In: ast.NotIn}
SWAPS |= {ast.Add: ast.Sub, ast.Mult: ast.Div, ast.And: ast.Or}
SWAPS |= {new: old for old, new in SWAPS.items()}


@dataclass(frozen=True)
class Bug:
    """A file of the package as it is, and as it is with one place changed."""

    path: Path
    old: str
    new: str

    def __str__(self) -> str:
        lines = zip(self.old.splitlines(), self.new.splitlines(), strict=False)
        number, (old, new) = next((n, pair) for n, pair in enumerate(lines, 1) if pair[0] != pair[1])
        return f"{self.path}:{number}  {old.strip()}  ->  {new.strip()}"


def bugs(path: Path, source: str) -> Iterator[Bug]:
    """Every bug that can be planted in this source."""
    data = source.encode()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, text in changes(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        before = data[: starts[node.lineno - 1] + node.col_offset]
        after = data[starts[node.end_lineno - 1] + node.end_col_offset :]
        yield Bug(path, source, (before + text.encode() + after).decode())


def changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """The places in this node where there is something to get wrong, and what each becomes.

    Left out are types, decorators, texts, and what only says what holds anyway.
    """
    match node:
        case ast.JoinedStr() | ast.Raise() | ast.Assert() | ast.keyword(arg="strict"):
            return
        case ast.FunctionDef(name="__repr__") | ast.If(test=ast.Name("TYPE_CHECKING")):
            return
        case ast.Compare(left, [op, *ops], right):
            yield node, f"({ast.unparse(ast.Compare(left, [SWAPS[type(op)](), *ops], right))})"
        case ast.BinOp(left, op, right) if type(op) in SWAPS and not is_text(left) and not is_text(right):
            yield node, f"({ast.unparse(ast.BinOp(left, SWAPS[type(op)](), right))})"
        case ast.AugAssign(target, op, value) if type(op) in SWAPS and not is_text(value):
            yield node, ast.unparse(ast.AugAssign(target, SWAPS[type(op)](), value))
        case ast.BoolOp(op, values):
            yield node, f"({ast.unparse(ast.BoolOp(SWAPS[type(op)](), values))})"
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Constant(bool(value)):
            yield node, str(not value)
        case ast.Constant(int(value) | float(value)):
            yield node, str(value + 1)
        case ast.Expr(ast.Call()):
            yield node, "pass"
        case ast.If(test) | ast.IfExp(test) | ast.While(test) if not isinstance(
            test, ast.Compare | ast.UnaryOp
        ):
            yield test, f"(not ({ast.unparse(test)}))"
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from changes(child)


def is_text(node: ast.expr) -> bool:
    """Whether a sign beside this joins texts, paths or lists, which no other sign can."""
    text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return text or isinstance(node, ast.JoinedStr | ast.List | ast.Tuple)


def drawn(room: str, number: int, seed: int) -> list[Bug]:
    """Bugs of a room, drawn by a hash of each: the draw stays while other lines change."""
    paths = [path for path in under(ROOT / "routerbench", ROOMS[room]) if "figures" not in path.parts]
    found = [bug for path in paths for bug in bugs(path.relative_to(ROOT), path.read_text())]
    return sorted(found, key=lambda bug: hashlib.sha256(f"{seed} {bug}".encode()).digest())[:number]


def under(folder: Path, names: str, prefix: str = "") -> list[Path]:
    """The Python files in folders of these names, and the files of these names."""
    inside = [path for name in names.split() for path in sorted((folder / name).rglob(f"{prefix}*.py"))]
    return inside + [path for name in names.split() if (path := folder / f"{prefix}{name}.py").exists()]


def stages(room: str, path: Path) -> list[list[str]]:
    """The files of tests that may notice a bug of this file: the nearest, those of the room, the others."""
    named = sorted((ROOT / "tests").rglob(f"test_{path.stem}.py"))
    near = under(ROOT / "tests", f"{ROOMS[room]} {ALSO.get(room, '')}", "test_")
    knowing = sorted(test for test, distance in distances([ROOT / path]).items() if distance == 1)
    near = [test for test in near if test not in named]
    knowing = [test for test in knowing if test not in named + near]
    return [[str(test.relative_to(ROOT)) for test in stage] for stage in (named, near, knowing)]


class Watch:
    """Runs the `chosen` tests alone, and notes the CPU seconds of each with its child processes."""

    def __init__(self, notes: Path, chosen: set[str] | None) -> None:
        self.notes = notes.open("w")
        self.chosen = chosen

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self.chosen is None or item.nodeid in self.chosen]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = spent()
        print(item.nodeid, end="\t", file=self.notes, flush=True)  # before it, as it may end the process
        result = yield
        print(round((spent() - before).both, 2), file=self.notes, flush=True)
        return result


class Copy:
    """A copy of the package and its tests, in which bugs are planted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cheap: dict[str, set[str]] = {}  # tests by file
        for path in ROOT.iterdir():
            if path.name in ("routerbench", "tests"):
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            elif path.name != ".git":
                (folder / path.name).symlink_to(path)

    def measure(self, tests: list[str]) -> None:
        """Find the cheap ones in these files of tests, all of which must pass."""
        new = [test for test in tests if test not in self.cheap]
        self.cheap |= {test: set() for test in new}
        if new and self.run(new, None):
            sys.exit(f"without a bug:\n{(self.folder / 'output').read_text()[-3000:]}")
        for line in (self.folder / "notes").read_text().splitlines() if new else []:
            test, seconds = line.split("\t")
            if float(seconds) < CHEAP_SECONDS:
                self.cheap[test.partition("::")[0]].add(test)

    def catching(self, bug: Bug, tests: list[list[str]]) -> str | None:
        """The first test that fails with this bug, or `import`; None if all pass."""
        self.write(bug.path, bug.new)
        try:
            for stage in tests:
                chosen = {name for test in stage for name in self.cheap[test]}
                if chosen and self.run([test for test in stage if self.cheap[test]], chosen):
                    begun = (self.folder / "notes").read_text().splitlines()
                    return begun[-1].partition("\t")[0] if begun else "import"
            return None
        finally:
            self.write(bug.path, bug.old)

    def write(self, path: Path, source: str) -> None:
        """Write a file of the package; of what was compiled, Python knows the second alone."""
        file = self.folder / path
        file.write_text(source)
        for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
            compiled.unlink()

    def run(self, tests: list[str], chosen: set[str] | None) -> bool:
        """Whether one of these tests fails, or the process that runs them."""
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=run_here, args=(self.folder, tests, chosen))
        process.start()
        process.join(None if chosen is None else 10 * HANGS_AFTER_SECONDS)
        process.kill()
        process.join()
        left = psutil.Process().children(recursive=True)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left)
        return process.exitcode not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def run_here(folder: Path, tests: list[str], chosen: set[str] | None) -> None:
    """Run the tests of this folder, in a process made for it."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    options = ["-p", "no:cacheprovider", "-m", "not slow", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    if chosen is not None:
        options += ["-x", "-o", f"faulthandler_timeout={HANGS_AFTER_SECONDS}"]
    code = pytest.main([*options, *tests], plugins=[Watch(Path("notes"), chosen)])
    sys.stdout.flush()
    os._exit(code)


def survivors(copy: Copy, planted: list[Bug], tests: list[list[list[str]]]) -> list[Bug]:
    """The bugs that their tests do not catch; says of each which test does."""
    missed = []
    for bug, of_bug in zip(planted, tests, strict=True):
        begun = time.monotonic()
        test = copy.catching(bug, of_bug)
        missed += [bug] if test is None else []
        print(f"{bug}\n    {test or 'SURVIVED'}  {time.monotonic() - begun:.0f} s", flush=True)
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Plant small bugs, and see whether the cheap tests catch them."
    )
    parser.add_argument("--room", choices=ROOMS, action="append", help="may be repeated; all, if left out")
    parser.add_argument("--per-room", type=int, default=10, help="bugs")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    asked = parser.parse_args()
    ctypes.CDLL(None).prctl(BE_SUBREAPER, 1)
    for name in SLOW_IMPORTS.split():
        import_module(name)
    rows, missed, too_few = [f"{'room':12}planted  caught   share"], [], False
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        for room in asked.room or ROOMS:
            planted = drawn(room, asked.per_room, asked.seed)
            tests = [stages(room, bug.path) for bug in planted]
            copy.measure(sorted({test for of_bug in tests for stage in of_bug for test in stage}))
            left = survivors(copy, planted, tests)
            share = 1 - len(left) / len(planted)
            too_few |= share < (0.9 if room in STRICT else 0.8)
            rows.append(f"{room:12}{len(planted):7}{len(planted) - len(left):8}{share:8.0%}")
            missed += left
    print("\nSurvivors:", *missed, "", *rows, sep="\n")
    sys.exit(too_few)


if __name__ == "__main__":
    main()
