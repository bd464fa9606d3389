"""What a command says in one line where it cannot go on."""

import os
import sys

from routerbench.printable import printable


def refuse(reason: object) -> int:
    """Say what the user should change; gives the exit code 2."""
    say(f"routerbench: {reason}")
    return 2


def say(line: str) -> None:
    """One of many processes says it for all: they stop for the same reason."""
    if int(os.environ.get("RANK", "0")) == 0:
        # In one write, its end too: lines of processes that share an unbuffered stderr would run together.
        sys.stderr.write("\n".join([*map(printable, line.split("\n")), ""]))
