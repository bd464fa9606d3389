"""A router that waits in the midst of training for as long as a test wants, and then may go wrong."""

import os
import time
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from routerbench.moe.router import Routing
from routerbench.routers.controls import Hash

RAISES, DIVERGES = 10, 11  # seeds
HELD_AFTER = 2  # steps of a process


class Faulty(Hash):
    """Chooses as `hash` does.

    The folder FAULTY_FOLDER is what a test and its runs have in common: every step that was taken is a line
    of `steps-<seed>`; while there is a file `hold`, a run waits, and there is a file `held-<process>`.
    """

    def __init__(self, width: int, num_experts: int, seed: int, **settings: int | float | str | None) -> None:
        super().__init__(width, num_experts, **settings)  # pyright: ignore[reportArgumentType]
        self.seed, self.num_steps = seed, 0

    def forward(self, tokens: Float[Tensor, "G S D"]) -> Routing:
        """A loss that is no number comes with the routing of one seed."""
        routing = super().forward(tokens)
        if self.seed != DIVERGES or not self.training:
            return routing
        return Routing(routing.plan, {"nan": tokens.new_tensor(torch.nan)})

    def after_step(self) -> None:
        """Note the step, wait if a test wants it, and raise for one seed."""
        self.num_steps += 1
        folder = Path(os.environ["FAULTY_FOLDER"])
        with (folder / f"steps-{self.seed}").open("a") as steps:
            steps.write(f"{os.getpid()}\n")
        if self.num_steps == HELD_AFTER:
            self._wait(folder)
            if self.seed == RAISES:
                raise RuntimeError("boom")

    def _wait(self, folder: Path) -> None:
        held = folder / f"held-{os.getpid()}"
        held.touch()
        while (folder / "hold").exists():
            time.sleep(0.02)
        held.unlink()
