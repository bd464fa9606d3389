"""Reading the mirror over HTTP, from a server that answers as W&B's does."""

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.errors import CommError

from routerbench.report.runs.wandb_source import read_mirrored
from routerbench.tracking import Mirror

CONFIG = {"seed": 3, "router": {"name": "soft", "_target_": "x"}, "optim": {"lr": 0.5}}
RECORD: dict[str, Any] = {
    "run_id": "a",
    "status": "done",
    "metrics": {"test/top1": 0.5},
    "cost": {},
    "config": CONFIG,
    "provenance": {"versions": {"hydra-core": "1.3"}},
    "error": None,
}


class Summary:
    """A W&B run of which the summary alone is told."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No W&B settings of the user, and a key as W&B's own servers give them out."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_API_KEY", "local" + "0" * 40)
    yield
    wandb.teardown()


def served(project: str, runs: list[dict[str, Any]]) -> AbstractContextManager[str]:
    path = Path(__file__).with_name("wandb_server.py")
    spec = importlib.util.spec_from_file_location("wandb_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.served(project, runs)


def mirrored(record: dict[str, Any]) -> dict[str, Any]:
    """What W&B has of a run with this record."""
    run = Summary()
    Mirror(run).keep(record)
    # The last row, which W&B may write after the record.
    return {
        "name": record["run_id"],
        "config": record["config"],
        "summary": {**run.summary, "test/top1": 0.1},
    }


@pytest.mark.filterwarnings("default")  # W&B's own
def test_the_runs_of_a_project_are_those_of_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [RECORD | {"run_id": name} for name in "cab"]
    records[1] |= {"status": "failed", "metrics": {}, "error": "it ended"}
    going = {"name": "going", "config": CONFIG, "summary": {"test/top1": 0.25}}
    others = [{"name": "other", "config": {}, "summary": {"record": "of another program"}}, going]
    with served("project", [*map(mirrored, records), *others]) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        found = read_mirrored("wandb:team/project")
    assert [run["run_id"] for run in found.runs] == ["a", "b", "c"]
    assert found.runs[1] == {
        "run_id": "b",
        "status": "done",
        "config.seed": 3,
        "config.router.name": "soft",
        "config.router._target_": "x",
        "config.optim.lr": 0.5,
        "metrics.test/top1": 0.5,
        "provenance.versions.hydra-core": "1.3",
    }
    assert (found.runs[0]["status"], found.runs[0]["error"]) == ("failed", "it ended")
    assert "metrics.test/top1" not in found.runs[0]
    text = "Left out, as W&B has no record of it (still going, or of another program): going, other"
    assert found.remarks == [text]


@pytest.mark.filterwarnings("default")
def test_a_project_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with served("project", []) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        text = "--source=wandb:team/none cannot be read: ValueError: Could not find project none"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            read_mirrored("wandb:team/none")


@pytest.mark.filterwarnings("default")
def test_without_a_key_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    with served("project", []) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        with pytest.raises(ValueError, match=r"^--source=wandb:team/project cannot be read: [^\n]+$"):
            read_mirrored("wandb:team/project")


def test_without_a_network_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise CommError("no net\nand a long story")

    monkeypatch.setattr(wandb, "Api", fail)
    text = "--source=wandb:team/project cannot be read: CommError: no net"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        read_mirrored("wandb:team/project")
