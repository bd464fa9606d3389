"""What has become of runs: how many by state, their exit code, and by name those that are not done."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from routerbench.ledger.ledger import STATES, UNFINISHED, Standing
from routerbench.printable import printable
from routerbench.records import run_folder
from routerbench.signals import EXIT_CODE

MOST_NAMED = 20  # of each state, unless all are asked for
NOT_NAMED = ("done", "missing")


def counts_line(counts: Mapping[str, int]) -> str:
    """24 done, 1 failed: each state that has any, in the order of STATES."""
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts.get(state))


def exit_code(counts: Mapping[str, int]) -> int:
    """1 where a run failed, diverged or ran out of memory; else 75 where some are not over; else 0."""
    states = {state for state, number in counts.items() if number}
    if states - {"done", *UNFINISHED}:
        return 1
    return EXIT_CODE if states & set(UNFINISHED) else 0


def run_line(results: Path, run_id: str, standing: Standing) -> str:
    """The state of a run, its folder, and what is known of that."""
    reason = f"  {standing.detail}" if standing.detail else ""
    return printable(f"{standing.state}: {run_folder(results, run_id)}{reason}")


def named_lines(results: Path, runs: Sequence[tuple[str, Standing]], everything: bool) -> list[str]:
    """A line for each run by its id that is neither done nor missing; the first of each state."""
    lines: list[str] = []
    for state in STATES:
        of_state = [(run_id, standing) for run_id, standing in runs if standing.state == state]
        if state not in NOT_NAMED:
            found = [run_line(results, run_id, standing) for run_id, standing in of_state]
            lines += found if everything else bounded(found)
    return lines


def bounded(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - MOST_NAMED
    return [*lines[:MOST_NAMED], *([f"and {more} more: --all"] if more > 0 else [])]
