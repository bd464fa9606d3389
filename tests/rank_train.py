"""`routerbench train`, a rank of which ends, raises an error or gets a signal before a step.

Arguments: the step, `kill`, `raise` or `warn`, words of the command.
"""

import os
import signal
import sys
from typing import Any

from routerbench.cli import main
from routerbench.step import TrainingStep

take = TrainingStep.__call__


def interrupted(self: TrainingStep, images: Any, labels: Any, number: int) -> Any:
    """A step, unless it is the one before which something happens."""
    if number == int(step):
        if how == "raise":
            raise RuntimeError("one rank went wrong")
        os.kill(os.getpid(), signal.SIGUSR1 if how == "warn" else signal.SIGKILL)
    return take(self, images, labels, number)


step, how = sys.argv[1:3]
TrainingStep.__call__ = interrupted
sys.argv[1:3] = []
main()
