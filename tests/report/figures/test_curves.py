import json
from pathlib import Path

from routerbench.report.figures.curves import Curves, read_curves

NAMES = ("test/top1", "train/task_loss")


def test_values_by_epoch(tmp_path: Path) -> None:
    rows = [
        {"epoch": 1, "step": 1, "train/task_loss": 2.0},
        {"epoch": 1, "step": 2, "train/task_loss": 1.0},
        {"epoch": 1, "step": 2, "test/top1": 0.5, "test/top5": 0.9},
        {"epoch": 2, "step": 4, "train/task_loss": 0.5},
        {"epoch": 2, "step": 4, "test/top1": 0.75},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # The two rows of the first epoch have 2.0 and 1.0: 1.5.
    expected = {"test/top1": {1: 0.5, 2: 0.75}, "train/task_loss": {1: 1.5, 2: 0.5}}
    assert read_curves(tmp_path, NAMES) == Curves(expected, 0)


def test_damaged_lines_are_counted_and_the_others_read(tmp_path: Path) -> None:
    lines = [
        b'{"epoch": 1, "test/top1": 0.5}',
        b'{"epoch": 1, "test/to',
        b"[1]",
        b'{"test/top1": 0.5}',
        b'{"epoch": true, "test/top1": 0.5}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"",
        b'{"epoch": 2, "test/top1": "high"}',
        b'{"epoch": 3, "test/top1": NaN}',
        b'{"epoch": 4, "test/top1": true}',
        b'{"epoch": 5, "test/top1": 1}',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert read_curves(tmp_path, NAMES) == Curves({"test/top1": {1: 0.5, 5: 1.0}}, 6)


def test_no_file(tmp_path: Path) -> None:
    assert read_curves(tmp_path, NAMES) == Curves({}, 0)
    (tmp_path / "metrics.jsonl").mkdir()
    assert read_curves(tmp_path, NAMES) == Curves({}, 0)
