"""What W&B has already, asked of its server."""

import os
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from routerbench.tracking.content import DIGEST

PATIENCE_SECONDS = 30  # for one answer
REFUSED = (401, 403)  # HTTP's words for a key that is none, or not for this
Answer = TypeVar("Answer")


class Project:
    """A project of W&B, which need not be there yet."""

    def __init__(self, name: str, entity: str | None) -> None:
        """Log in; an `entity` of None is that of the key.

        Raises ValueError for a key or an entity that W&B does not know, ConnectionError where nobody answers.
        """
        import wandb  # heavy

        os.environ.setdefault("WANDB_SILENT", "true")
        self._api = _answered(lambda: wandb.Api(timeout=PATIENCE_SECONDS))
        self.name, self.entity = name, _known(_answered(lambda: self._api.viewer), entity)

    def has(self, digests: Collection[str]) -> set[str]:
        """Which runs are there with one of these digests in their summaries: by one question for all.

        Raises ConnectionError where nobody answers.
        """
        of_these = {f"summary_metrics.{DIGEST}": {"$in": sorted(digests)}}
        path = f"{self.entity}/{self.name}"
        # Lazy runs come without their summaries, which are long and not needed.
        runs = self._api.runs(path, filters=of_these, per_page=len(digests), lazy=True)
        return _answered(lambda: _ids(runs))


def _known(viewer: Any, entity: str | None) -> str:
    """The entity that is asked for, which must be one of the key's own."""
    theirs = [viewer.entity, viewer.username, *viewer.teams]
    if entity not in (None, *theirs):
        raise ValueError(f"--entity={entity} is none of this key: {', '.join(sorted(set(theirs)))}")
    return entity or viewer.entity


def _ids(runs: Any) -> set[str]:
    try:
        return {run.id for run in runs}
    except ValueError:  # W&B's word for a project that nobody has put a run into
        return set()


def _answered(ask: Callable[[], Answer]) -> Answer:
    """What W&B answers; its many errors are two: it refuses, or it is not reached."""
    from wandb.errors import UsageError

    try:
        return ask()
    except (ValueError, UsageError) as error:
        raise ValueError(_line(error)) from error
    except Exception as error:
        if any(_status(part) in REFUSED for part in (error, error.__cause__)):
            raise ValueError(_line(error)) from error
        raise ConnectionError(_line(error)) from error


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "http_status", None)


def _line(error: Exception) -> str:
    return f"W&B: {str(error).strip().partition(chr(10))[0]}"
