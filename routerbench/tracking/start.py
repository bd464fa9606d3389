"""What a run is in W&B: said in one way, for the mirror of a run that trains and for `routerbench sync`."""

import os
from pathlib import Path
from typing import Any

PROJECT = "routerbench"
LONGEST_TAG = 64  # letters; W&B refuses a run with a longer one
FINISH_SECONDS = 120  # after which a run of a lost network is let go


def start(
    folder: Path,
    run_id: str,
    group: str,
    settings: dict[str, Any],
    mode: str,
    project: str = PROJECT,
    entity: str | None = None,
) -> Any:
    """Begin the W&B run of this id, with its files below `folder`; gives what `wandb.init` gives.

    What W&B has of this id goes on after its last row, at the step after it. Runs that differ by their seed
    alone share `group`. Raises what `wandb.init` raises.
    """
    import wandb  # heavy, and not needed where W&B is disabled

    os.environ.setdefault("WANDB_SILENT", "true")
    names = (settings["data"]["name"], settings["model"]["name"], settings["router"]["name"])
    return wandb.init(
        project=project,
        entity=entity,
        id=run_id,
        name=run_id,
        group=group,
        job_type="train",
        tags=[str(name)[:LONGEST_TAG] for name in names],
        config=settings,
        dir=folder.absolute(),  # W&B's own process may have another working folder
        mode=mode,  # pyright: ignore[reportArgumentType]  checked with the configuration
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(
            console="off",
            x_disable_stats=True,
            x_save_requirements=False,  # a third of a second; the record names the versions that matter
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
        ),
    )
