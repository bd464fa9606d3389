"""The dense twin of a run: the same backbone, data and seed without MoE layers."""

from typing import Any

from routerbench.identity import twin_id
from routerbench.load import FinishedRun
from routerbench.records import read_record


def dense_twin(run: FinishedRun) -> dict[str, Any] | None:
    """Its record, where it is done and stands in the same results folder."""
    config = run.record["config"]
    if config["router"]["name"] == "dense":
        return None
    for folder in sorted(run.folder.resolve().parent.glob(f"*-dense-s{config['seed']}-*")):
        try:
            record = read_record(folder)
        except (OSError, ValueError):  # damaged: the report says so
            continue
        if record and record["status"] == "done" and twin_id(record["config"]) == twin_id(config):
            return record
    return None
