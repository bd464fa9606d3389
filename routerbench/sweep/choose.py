"""A sweeper other than Hydra's own, such as Optuna's: it chooses cells as it goes, by earlier ones."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins

from routerbench.compose import Sweep, compose_sweep
from routerbench.compose.words import parsed
from routerbench.refusal import say
from routerbench.sweep.context import hydra_context
from routerbench.sweep.job import Job, RefusedError
from routerbench.sweep.torchrun import num_processes


@dataclass(frozen=True)
class Chosen:
    """The job of a cell that nobody has checked before."""

    job: Job
    chosen: Path
    """A file with a line for each: its words."""

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
            say(f"{' '.join(HydraConfig.get().overrides.task)}  {error}")
            raise RefusedError(str(error)) from None
        return self.job(config)


def choose(sweep: Sweep, overrides: list[str], job: Job) -> Sweep:
    """Have the sweeper of the sweep run what it chooses; gives back the sweep of that."""
    words = [str(word.input_line) for word in parsed(overrides) if not word.is_hydra_override()]
    results = Path(sweep.hydra.runtime.results)
    results.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=results, prefix=".chosen-") as folder:
        chosen = Path(folder, "words")
        chosen.touch()
        with hydra_context(sweep) as context:
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=context, task_function=Chosen(job, chosen), config=sweep.hydra
            )
            sweeper.sweep(arguments=words)
        lines = chosen.read_text().splitlines()
    cells = [compose_sweep(json.loads(line), job.config_dir, multirun=False).cells[0] for line in lines]
    return Sweep(list({cell.run_id: cell for cell in cells}.values()), sweep.hydra, multirun=True)
