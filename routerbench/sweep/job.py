"""One cell, in whatever process a launcher calls it."""

import gc
import os
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routerbench.refusal import say
from routerbench.signals import GivenBackError, RequeueError, Warned, heeded
from routerbench.sweep.stop import Stop


class RefusedError(Exception):
    """What a cell needs is not so: it ran into it, and said so."""


class NotDoneError(Exception):
    """A cell without a result, of which the ledger knows more."""


@dataclass(frozen=True)
class Job:
    """What a launcher calls with the configuration of a cell."""

    titles: dict[str, str]
    """What is said of each run, by its id."""
    command: str
    """Of which the cells are parts."""
    config_dir: str | None
    """Where the user has files of their own."""
    stop: Stop | None
    """By which the command ends it; None in a queue, where a job goes on without the command."""
    at_once: int = 1
    """How many such jobs share the cores of this machine."""

    def __call__(self, config: Any) -> float:
        """Train, and give back the accuracy on the minival, where there is one, or the test set, in [0, 1].

        Raises NotDoneError where the run has none, RefusedError for what it ran into: a cell stops no other.
        Of many ranks one that goes wrong stops all of them, so any error is raised there.
        """
        from routerbench.compose import import_from

        import_from(self.config_dir)
        os.environ["ROUTERBENCH_JOBS"] = str(self.at_once)  # for torchrun's processes too
        from routerbench.identity import identity, run_id

        name = run_id(identity(config))
        title = self.titles.get(name, name)
        heard = self.stop.heard if self.stop else nullcontext
        state = "interrupted"
        try:
            with heeded() as warned, heard(warned):
                state = f"stopped by {warned.by}" if warned.by else self._train(config, title, warned)
        except GivenBackError as error:
            say(f"{title}  {error}")
        if state == "done":
            return _top1(Path(config.runtime.results), name)
        raise NotDoneError(f"{title}: {state}")

    def _train(self, config: Any, title: str, warned: Warned) -> str:
        """What becomes of the run."""
        from routerbench.ranks import num_ranks

        try:
            return self._run(config, title, warned)
        except Exception as error:
            if num_ranks() > 1:  # where one of them goes wrong, the others wait for it
                raise
            if not isinstance(error, RequeueError | ValueError | OSError):
                traceback.print_exc()
            say(f"{title}  {error}")
            if not isinstance(error, RequeueError):
                raise RefusedError(str(error)) from None
            return "interrupted"

    def _run(self, config: Any, title: str, warned: Warned) -> str:
        from hydra.core.hydra_config import HydraConfig
        from rich.console import Console

        from routerbench import experiment
        from routerbench.compose import repeating
        from routerbench.sweep.torchrun import is_for_many, run_by_torchrun, under_torchrun

        repeat = repeating(HydraConfig.get().overrides.task, self.config_dir)
        if is_for_many(config):
            return run_by_torchrun(config, repeat, title, warned, self.stop)
        if gc.get_freeze_count() == 0:
            gc.freeze()  # what is imported stays: to look at it takes each collection a fifth of a second
        # Several processes with a moving bar each would write over each other.
        alone = under_torchrun() or (self.stop is not None and self.stop.process == os.getpid())
        console = Console(quiet=int(os.environ.get("RANK", "0")) > 0, force_terminal=None if alone else False)
        return experiment.run(
            config, command=self.command, repeat=repeat, console=console, title=title, warned=warned
        )


def _top1(results: Path, name: str) -> float:
    from routerbench.records import read_record, run_folder

    record = read_record(run_folder(results, name))
    if record is None:
        raise NotDoneError(f"{name}: its record has been taken away")
    metrics = record["metrics"]
    return metrics.get("minival/top1", metrics["test/top1"])
