"""The files of a run that is over, as an artifact of W&B."""

import re
import tempfile
from pathlib import Path
from typing import Any

from routerbench.tracking.content import DIGEST, layer_table, summary_of

FILES = ("config.yaml", "metrics.jsonl", "record.json")
LONGEST_NAME = 128
WAIT_SECONDS = 120


def publish(run: Any, folder: Path, record: dict[str, Any], digest: str | None) -> None:
    """Put a run that is over into its W&B run: its files, and then its record with the digest of it.

    The digest says that all the rest is there; it is of a file that was read no later than the record, so
    that what an evaluation adds meanwhile is sent the next time. Raises what W&B raises.
    """
    with tempfile.TemporaryDirectory() as scratch:
        run.log_artifact(_artifact(folder, record, Path(scratch))).wait(WAIT_SECONDS)
    run.summary.update({**summary_of(record), DIGEST: digest})


def _artifact(folder: Path, record: dict[str, Any], scratch: Path) -> Any:
    """The record's files, the final routing of each MoE layer as a table, and the maps as a picture."""
    import wandb

    name = re.sub(r"[^\w.-]", "_", record["run_id"], flags=re.ASCII)[:LONGEST_NAME]
    artifact = wandb.Artifact(name, type="run")
    for path in (folder / file for file in FILES):
        if path.exists():
            _add(artifact, path)
    columns, rows = layer_table(record)
    if rows:
        artifact.add(wandb.Table(columns=columns, data=rows), "layers")
    if (folder / "routing.npz").exists():
        from routerbench.report.figures.run_maps import write_maps  # matplotlib takes a second

        if write_maps(folder, scratch / "maps.png"):
            _add(artifact, scratch / "maps.png")
    return artifact


def _add(artifact: Any, path: Path) -> None:
    # Else W&B keeps a copy in the user's home.
    artifact.add_file(str(path), policy="immutable", skip_cache=True)
