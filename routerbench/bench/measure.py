"""From a case to its record: what each contestant takes in time, operations and memory, or why it cannot."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from routerbench.bench.cases import Case, ModelCase, RouterCase
from routerbench.bench.layers import Makers, expert_gradient_bytes
from routerbench.bench.memory import peak_bytes
from routerbench.bench.peers import reason
from routerbench.costs import count_flops
from routerbench.timing import Contestant, Step, rounds

SEED = 0


def measure(
    case: Case, makers: Makers, device: torch.device, seconds_of: Callable[[Step], float], repeats: int
) -> dict[str, Any]:
    """The case with a record of each contestant: `seconds` of every round, `flops`, `peak_bytes`.

    One that is not made has `refused`, one that breaks has `failed`, with the reason. A memory case has no
    rounds.
    """
    contestants: list[Contestant] = []
    records: dict[str, dict[str, Any]] = {}
    for name, make in makers.items():
        torch.manual_seed(SEED)
        try:
            contestant = make()
        except ValueError as error:
            records[name] = {"name": name, "refused": str(error)}
            continue
        records[name] = {"name": name, "backend": contestant.backend}
        try:
            records[name] |= _counted(contestant, device)
        except Exception as error:  # a contestant of the user, or one that is out of memory
            records[name] |= {"failed": reason(error)}
        else:
            contestants.append(contestant)
    if case.kind != "memory":
        failures: dict[str, str] = {}
        guarded = [_guarded(contestant, failures) for contestant in contestants]
        for name, seconds in rounds(guarded, seconds_of, repeats).items():
            records[name] |= {"failed": failures[name]} if name in failures else {"seconds": seconds}
    return {"case": str(case), "kind": case.kind, **_described(case), "contestants": list(records.values())}


def _guarded(contestant: Contestant, failures: dict[str, str]) -> Contestant:
    """The contestant, which no longer takes its step once that has broken, and says why in `failures`."""

    def step() -> None:
        if contestant.name not in failures:
            try:
                contestant.step()
            except Exception as error:  # the others go on
                failures[contestant.name] = reason(error)

    return replace(contestant, step=step)


def _counted(contestant: Contestant, device: torch.device) -> dict[str, Any]:
    contestant.step()  # what is made once is no part of a step
    contestant.reset()
    torch.manual_seed(SEED)  # a router's noise may decide how much is held
    peak = peak_bytes(contestant, device)
    flops = count_flops(contestant.step)
    contestant.reset()
    return {"flops": flops, "peak_bytes": peak}


def _described(case: Case) -> dict[str, Any]:
    """The settings of a case, with those of its shape beside them."""
    settings = asdict(case)
    shape = settings.pop("shape", {})
    if isinstance(case, RouterCase | ModelCase):
        return {**shape, **settings}
    return {**shape, **settings, "expert_gradient_bytes": expert_gradient_bytes(case.shape)}
