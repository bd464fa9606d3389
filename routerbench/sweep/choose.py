"""A sweeper other than Hydra's own, such as Optuna's: it chooses cells as it goes, by earlier ones."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from routerbench.compose import Cell, Sweep, compose_sweep
from routerbench.compose.words import parsed
from routerbench.refusal import say
from routerbench.sweep.context import hydra_context
from routerbench.sweep.job import Job, RefusedError
from routerbench.sweep.torchrun import num_processes

FAILURES = "hydra.sweeper.max_failure_rate"  # in a batch of trials, beyond which Optuna gives up


@dataclass(frozen=True)
class Chosen:
    """The job of a cell that nobody has checked before."""

    job: Job
    chosen: Path
    """A file with a line for each: its words."""
    refused: Path
    """A file that is there once one of them could not be."""

    def __call__(self, config: Any) -> float:
        """Check, then train, and give back what is to be maximized; what a job raises fails a trial."""
        from routerbench.config import check
        from routerbench.parts import verify

        with self.chosen.open("a") as file:
            file.write(json.dumps(list(HydraConfig.get().overrides.task)) + "\n")
        try:
            check(config, num_processes(config))
            verify(config)
        except ValueError as error:
            self.refused.touch()
            say(f"{' '.join(HydraConfig.get().overrides.task)}  {error}")
            raise RefusedError(str(error)) from None
        return self.job(config)


def choose(sweep: Sweep, overrides: list[str], job: Job) -> bool:
    """Have the sweeper of the sweep run what it chooses; gives back whether each cell could be.

    The sweep has the cells that were chosen then, also where it ends with an error.
    """
    words = [str(word.input_line) for word in parsed(overrides) if not word.is_hydra_override()]
    results = Path(sweep.hydra.runtime.results)
    results.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=results, prefix=".chosen-") as folder:
        task = Chosen(job, Path(folder, "words"), Path(folder, "refused"))
        task.chosen.touch()
        try:
            with hydra_context(sweep) as context:
                sweeper = Plugins.instance().instantiate_sweeper(
                    hydra_context=context, task_function=task, config=_bearing_failures(sweep, overrides)
                )
                sweeper.sweep(arguments=words)
            return not task.refused.exists()
        finally:
            sweep.cells.extend(_cells(task.chosen.read_text().splitlines(), job.config_dir))


def _bearing_failures(sweep: Sweep, overrides: list[str]) -> DictConfig:
    """The configuration in which no trial that fails ends the others, as Optuna has it unless it is told."""
    config = sweep.hydra.copy()
    told = any(word.startswith(FAILURES) for word in overrides)
    if OmegaConf.select(config, FAILURES) is not None and not told:
        OmegaConf.update(config, FAILURES, 1.0)
    return config


def _cells(lines: list[str], config_dir: str | None) -> list[Cell]:
    """Those that were chosen, each once."""
    cells = [compose_sweep(json.loads(line), config_dir, multirun=False).cells[0] for line in lines]
    return list({cell.run_id: cell for cell in cells}.values())
