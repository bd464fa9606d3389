"""The cells that are left, given to Hydra's own launcher."""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus

from routerbench.compose import Cell, Sweep
from routerbench.refusal import say
from routerbench.signals import asking_to_stop
from routerbench.sweep.context import hydra_context
from routerbench.sweep.job import Job, NotDoneError, RefusedError
from routerbench.sweep.outcome import left_of, standings
from routerbench.sweep.stop import Stop
from routerbench.sweep.torchrun import under_torchrun

LAST_TRY = 3  # of a cell that was in the midst when a process died


class Ended(KeyboardInterrupt):
    """A signal has ended the command; as Hydra takes each Exception for one of a job, this is none.

    Ray lets nothing else than a KeyboardInterrupt end its waiting, and raises a new one then.
    """


@contextmanager
def ended_in_order(stop: Stop) -> Iterator[None]:
    """Inside, a signal that asks to stop has all jobs keep their state, then raises Ended; a second kills."""
    first: list[str] = []

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        name = signal.Signals(number).name
        first.append(name)
        stop.say(name)
        raise Ended(name)

    before = {number: signal.signal(number, end) for number in asking_to_stop()}
    try:
        yield
    except KeyboardInterrupt as error:
        raise Ended(first[0]) if first else error from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(sweep: Sweep, cells: Sequence[Cell], job: Job) -> bool:
    """Run the cells by the launcher of the sweep; gives back whether each could be.

    A process that is killed takes joblib's whole pool with it. What is left is launched again then: last the
    cells that were in the midst, and each alone at last, so that one that has its process killed every time
    stops no other. Raises what goes wrong in a cell of many ranks, after which there can be no next.
    """
    left, deaths, each_could_be = {cell.run_id: cell for cell in cells}, Counter[str](), True
    number = {name: index for index, name in enumerate(left)}
    with _launcher(sweep, job) as launcher:
        while left:
            batch = _next_batch(left, deaths)
            words = [list(cell.words) for cell in batch.values()]
            try:
                returns = launcher.launch(words, initial_job_idx=number[next(iter(batch))])
                ended = batch.keys()
                each_could_be &= _could_be(returns)
            except BrokenProcessPool as error:
                ended = _ended_by_death(sweep, batch, deaths, error)
                each_could_be &= not any(deaths[name] == LAST_TRY for name in ended)
            left = {name: cell for name, cell in left.items() if name not in ended}
    return each_could_be


@contextmanager
def _launcher(sweep: Sweep, job: Job) -> Iterator[Any]:
    with hydra_context(sweep) as context:
        yield Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=job, config=sweep.hydra
        )


def _next_batch(left: dict[str, Cell], deaths: Counter[str]) -> dict[str, Cell]:
    """The cells that were in the midst of the fewest deaths; one alone for its last try, or of many ranks."""
    fewest = min(deaths[name] for name in left)
    batch = {name: cell for name, cell in left.items() if deaths[name] == fewest}
    alone = fewest == LAST_TRY - 1 or under_torchrun()
    return dict(list(batch.items())[:1]) if alone else batch


def _could_be(returns: Sequence[JobReturn]) -> bool:
    """Whether no cell was refused; raises what else than the run of a cell went wrong."""
    errors = [each._return_value for each in returns if each.status == JobStatus.FAILED]
    for error in errors:
        if not isinstance(error, NotDoneError | RefusedError):
            raise error
    return not any(isinstance(error, RefusedError) for error in errors)


def _ended_by_death(
    sweep: Sweep, batch: dict[str, Cell], deaths: Counter[str], error: BrokenProcessPool
) -> set[str]:
    """Of a batch whose pool is broken the cells that are not to be launched again; the others are counted.

    Raises the error where no cell had begun, for so it would go on for ever.
    """
    cells = list(batch.values())
    found = standings(cells)
    states = {cell.run_id: standing.state for cell, standing in zip(cells, found, strict=True)}
    left = {cell.run_id for cell in left_of(cells, found)}
    begun = {name for name in left if states[name] != "missing"}
    if len(begun) == 0 and len(left) == len(batch):
        raise error
    deaths.update(begun)
    given_up = {name for name in begun if deaths[name] == LAST_TRY}
    say(f"a process was killed, which ended {len(begun)} runs: {len(left - given_up)} are launched again")
    for name in given_up:
        say(f"{sweep.name_of(batch[name])}: its process was killed {LAST_TRY} times: it is given up")
    return (batch.keys() - left) | given_up
