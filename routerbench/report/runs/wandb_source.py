"""The mirror in W&B -> runs, by the records that stand in the summaries there."""

import json
import os
from typing import Any

from routerbench.printable import printable, some
from routerbench.records import is_whole
from routerbench.report.runs.run import Found, in_order, run_of

PER_PAGE = 200


def read_mirrored(source: str) -> Found:
    """The runs of `wandb:entity/project`; those without a record are named in the remarks.

    Raises ValueError, in one line, where W&B or the project cannot be read.
    """
    path = source.removeprefix("wandb:")
    whole, others = [], []
    for name, config, summary in _fetched(path):
        record = _record(config, summary.get("record"))
        if is_whole(record):
            whole.append(run_of(record))
        else:
            others.append(name)
    text = "Left out, as W&B has no record of it (still going, or of another program): {}"
    return Found(in_order(whole), (), [text.format(some(sorted(others)))] if others else [])


def _record(config: dict[str, Any], kept: Any) -> dict[str, Any] | None:
    """What `tracking.content.summary_of` has put there, or its first version, which was a mapping."""
    try:
        kept = json.loads(kept) if isinstance(kept, str) else kept
    except ValueError:
        return None
    return {**kept, "config": config} if isinstance(kept, dict) else None


def _fetched(path: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, configuration and summary of every run of the project."""
    import wandb  # heavy, and asked for by a few reports alone

    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        # Not lazy: that would be one more request for each run.
        runs = wandb.Api().runs(path, per_page=PER_PAGE, lazy=False)
        return [(run.id, run.config, run.summary_metrics) for run in runs]
    except Exception as error:  # of many kinds, by the way it went wrong
        what = str(error).strip().partition("\n")[0]
        text = f"--source=wandb:{path} cannot be read: {type(error).__name__}: {what}"
        raise ValueError(printable(text)) from error
