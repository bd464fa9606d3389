import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routerbench.report.options import Options
from routerbench.report.runs.run import Found, Run, run_of
from routerbench.report.runs.sources import read

WriteRun = Callable[..., Path]
Mirrored = Callable[..., Options]


@pytest.fixture
def mirrored(results: Path, monkeypatch: pytest.MonkeyPatch) -> Mirrored:
    """A function that lets W&B have these runs; gives the options that read them and the folder."""

    def let(*records: dict[str, Any], remarks: tuple[str, ...] = ()) -> Options:
        found = Found([run_of(record) for record in records], (), remarks)
        monkeypatch.setattr("routerbench.report.runs.sources.read_mirrored", lambda source: found)
        return Options(results, results, source="wandb:team/project")

    return let


def record_of(path: Path, **metrics: Any) -> dict[str, Any]:
    record = json.loads(path.read_text())
    return record | {"metrics": record["metrics"] | metrics}


def scores(runs: list[Run]) -> dict[str, Any]:
    return {run["run_id"]: run.get("metrics.test/top1") for run in runs}


def test_both_sources_together_have_every_run_once_and_the_folder_counts(
    results: Path, write_run: WriteRun, mirrored: Mirrored
) -> None:
    same = write_run("soft", 0, 0.5, run_id="same")
    other = write_run("soft", 1, 0.6, run_id="other")
    lost = write_run("soft", 2, 0.7, run_id="lost")
    asked = mirrored(
        record_of(same),
        record_of(other, **{"test/top1": 0.9}),
        record_of(lost),
        remarks=("Left out: x",),
    )
    lost.unlink()
    found = read(asked)
    assert scores(list(found.runs)) == {"same": 0.5, "other": 0.6, "lost": 0.7}
    assert ["folder" in run for run in found.runs if run["run_id"] == "lost"] == [False]
    assert found.remarks == [
        "Left out: x",
        "W&B has another status or other metrics, and the record of the folder counts: other",
    ]


def test_the_mirror_alone(results: Path, write_run: WriteRun, mirrored: Mirrored) -> None:
    asked = mirrored(record_of(write_run("soft", 0, 0.5, run_id="a")))
    alone = Options(None, results, source=asked.source)
    assert scores(list(read(alone).runs)) == {"a": 0.5}


def test_an_empty_mirror_is_one_line(results: Path, mirrored: Mirrored) -> None:
    asked = mirrored(remarks=("Left out, as W&B has no record of it: x",))
    text = "--source=wandb:team/project holds no finished run; Left out, as W&B has no record of it: x"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        read(Options(None, results, source=asked.source))


def test_a_metric_that_is_no_number_is_missing_and_said(results: Path, write_run: WriteRun) -> None:
    paths = [write_run("soft", seed, 0.5, run_id=f"run{seed}") for seed in range(6)]
    for path, value in zip(paths, [float("nan"), float("inf"), "0.5", True, [0.5], 10**400], strict=True):
        path.write_text(json.dumps(record_of(path, **{"test/top1": value})))
    for seed in range(25):
        path = write_run("hash", seed, 0.5, run_id=f"other{seed:02d}")
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"cost": {"train_seconds": "long"}}))
    found = read(Options(results, results))
    assert set(scores([run for run in found.runs if run["config.router.name"] == "soft"]).values()) == {None}
    names = ", ".join(f"other{seed:02d}" for seed in range(20))
    assert found.remarks == [
        f"Taken as missing, as it is no number: cost.train_seconds of {names} and 5 more",
        "Taken as missing, as it is no number: metrics.test/top1 of run0, run1, run2, run3, run4, run5",
    ]


def test_what_a_filter_leaves_out_is_not_spoken_of(results: Path, write_run: WriteRun) -> None:
    path = write_run("soft", 0, 0.5)
    path.write_text(json.dumps(record_of(path, **{"test/top1": None, "test/loss": "x"})))
    write_run("hash", 0, 0.5)
    found = read(Options(results, results, where={"router": ("hash",)}))
    assert (len(found.runs), found.remarks) == (1, [])
