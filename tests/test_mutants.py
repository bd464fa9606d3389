"""The bugs that `make mutants` plants, each worked by hand."""

from pathlib import Path

import pytest
from mutants import ALSO, ROOMS, ROOT, bugs, stages, under


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("a < b", ["(a <= b)"]),
        ("a is not b <= c", ["(a is b <= c)"]),
        ("(a + b) * 2", ["((a + b) / 2)", "((a - b)) * 2", "(a + b) * 3"]),
        ("a -= b", ["a += b"]),
        ("not a or b", ["(not a and b)", "(a) or b"]),
        ("x[-1]", ["x[(1)]", "x[-2]"]),
        ("f(0.5, sure=True)", ["pass", "f(1.5, sure=True)", "f(0.5, sure=False)"]),
        ("a if f() else b", ["a if (not (f())) else b"]),
        ("'é', a == b", ["'é', (a != b)"]),  # the place is counted in bytes
        ("if a: f()", ["if (not (a)): f()", "if a: pass"]),
        ("def f(x: Literal[1] = 2) -> Literal[3]: ...", ["def f(x: Literal[1] = 3) -> Literal[3]: ..."]),
        ("a = 'text' + b", []),
        ("raise ValueError(f'{a + 1}')", []),
        ("assert a == b", []),
        ("if TYPE_CHECKING: f()", []),
        ("@dataclass(frozen=True)\nclass A: ...", []),
        ("zip(a, b, strict=True)", ["pass"]),
    ],
)
def test_bugs_of_a_line(line: str, changed: list[str]) -> None:
    assert [bug.new for bug in bugs(Path("a.py"), line)] == changed


def test_a_bug_is_told_by_its_line() -> None:
    (bug,) = bugs(Path("a.py"), "def f(a, b):\n    return a + b\n")
    assert str(bug) == "a.py:2  return a + b  ->  return (a - b)"


def test_rooms_name_what_there_is() -> None:
    for names in ROOMS.values():
        for name in names.split():
            assert under(ROOT / "routerbench", name), name
    for names in ALSO.values():
        for name in names.split():
            assert under(ROOT / "tests", name, "test_"), name


def test_the_nearest_tests_are_of_the_name_then_of_the_room_then_those_that_import_it() -> None:
    named, near, knowing = stages("ledger", Path("routerbench/ledger/attempts.py"))
    assert named == ["tests/ledger/test_attempts.py"]
    assert set(near) >= {"tests/ledger/test_ledger.py", "tests/test_records.py"}
    assert "tests/test_experiment.py" in knowing
