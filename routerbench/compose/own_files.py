"""Files of the user, which stand in a folder of theirs."""

import sys
from pathlib import Path


def import_from(config_dir: str | None) -> None:
    """Let what stands beside the user's yaml be imported, such as a router."""
    own = None if config_dir is None else str(Path(config_dir).resolve())
    if own is not None and own not in sys.path:
        sys.path.insert(0, own)
