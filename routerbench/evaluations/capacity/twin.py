"""The dense twin of a run: the same backbone, data and seed without MoE layers."""

from typing import Any

from routerbench.found import is_number
from routerbench.identity import twin_id
from routerbench.load import FinishedRun
from routerbench.records import read_record

DRAWN = ("test/top1", "flops_per_image_eval")


def dense_twin(run: FinishedRun) -> dict[str, Any] | None:
    """Its record, where it is done, tells of accuracy and FLOPs, and stands in the same results folder."""
    config = run.record["config"]
    if config["router"]["name"] == "dense":
        return None
    for folder in sorted(run.folder.resolve().parent.glob(f"*-dense-s{config['seed']}-*")):
        try:
            record = read_record(folder)
        except (OSError, ValueError):  # damaged: the report says so
            continue
        if record and _tells(record) and twin_id(record["config"]) == twin_id(config):
            return record
    return None


def _tells(record: dict[str, Any]) -> bool:
    """Whether it is done and has what is drawn of it, which a record of another version may not."""
    parts = [record.get("metrics"), record.get("cost")]
    found = {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    return record["status"] == "done" and all(is_number(found.get(name)) for name in DRAWN)
