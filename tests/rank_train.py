"""`routerbench train`, one rank of which ends, raises an error or gets a signal before a step.

`torchrun` starts this file. Arguments: the rank, the step, `kill`, `raise` or `warn`, words of the command.
"""

import os
import signal
import sys
from typing import Any

from routerbench.cli import main
from routerbench.step import TrainingStep

take = TrainingStep.__call__


def interrupted(self: TrainingStep, images: Any, labels: Any, number: int) -> Any:
    """A step, unless it is the one before which something happens to this rank."""
    if os.environ["RANK"] == rank and number == int(step):
        if how == "raise":
            raise RuntimeError("one rank went wrong")
        os.kill(os.getpid(), signal.SIGUSR1 if how == "warn" else signal.SIGKILL)
    return take(self, images, labels, number)


rank, step, how = sys.argv[1:4]
TrainingStep.__call__ = interrupted
sys.argv[1:4] = []
main()
