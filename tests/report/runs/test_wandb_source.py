"""Reading the mirror over HTTP, from a server that answers as W&B's does."""

import re
from typing import Any

import pytest
import wandb
from wandb.errors import CommError

from routerbench.report.runs.run import run_of
from routerbench.report.runs.wandb_source import read_mirrored
from routerbench.tracking.content import summary_of

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


pytestmark = pytest.mark.filterwarnings("default")  # W&B's own


@pytest.fixture
def server(wandb_server: Any) -> Any:
    """The module's stand-in, with nothing in it, which gives two runs at once."""
    wandb_server.forget()
    wandb_server.page = 2
    return wandb_server


def mirrored(record: dict[str, Any]) -> dict[str, Any]:
    """What W&B has of a run with this record."""
    # The last row, which W&B may write after the record.
    summary = {**summary_of(record), "test/top1": 0.1}
    return {"name": record["run_id"], "config": record["config"], "summary": summary}


def test_the_runs_of_a_project_are_those_of_its_records(server: Any) -> None:
    records = [RECORD | {"run_id": name} for name in "cab"]
    records[1] |= {"status": "failed", "metrics": {}, "error": "it ended"}
    going = {"name": "going", "config": CONFIG, "summary": {"test/top1": 0.25}}
    others = [{"name": "other", "config": {}, "summary": {"record": "of another program"}}, going]
    for run in (*map(mirrored, records), *others):
        server.add("project", run)
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


def test_a_record_that_was_mirrored_as_a_mapping_is_read_as_ever(server: Any) -> None:
    kept = {"schema": 1, **{name: part for name, part in RECORD.items() if name != "config"}}
    server.add("project", {"name": "a", "config": CONFIG, "summary": {"record": kept}})
    assert read_mirrored("wandb:team/project").runs == [run_of({"schema": 1, **RECORD})]


def test_a_project_that_is_not_there_is_one_line(server: Any) -> None:
    text = "--source=wandb:team/none cannot be read: ValueError: Could not find project none"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        read_mirrored("wandb:team/none")


def test_without_a_key_it_is_one_line(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()  # it remembers the key
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(ValueError, match=r"^--source=wandb:team/project cannot be read: [^\n]+$"):
        read_mirrored("wandb:team/project")


def test_without_a_network_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise CommError("no net\nand a long story")

    monkeypatch.setattr(wandb, "Api", fail)
    text = "--source=wandb:team/project cannot be read: CommError: no net"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        read_mirrored("wandb:team/project")
