"""One configuration -> one record. With `parts` the only reader of the configuration."""

import logging
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from routerbench import records
from routerbench.config import can_part
from routerbench.data.image_files import CorruptImageError
from routerbench.identity import group_id, identity, run_id
from routerbench.ledger.attempts import Attempt, LostError, RunningError, claimed, refuse_running
from routerbench.ledger.ledger import is_left
from routerbench.measure import Inputs, load_inputs, measure
from routerbench.parts import choose_device
from routerbench.printable import printable
from routerbench.progress import display
from routerbench.provenance import provenance
from routerbench.ranks import agreed, checked_by_all, num_ranks, rank
from routerbench.signals import KilledError, RequeueError, Warned
from routerbench.step import DivergedError
from routerbench.tracking import mirror
from routerbench.train import Row
from routerbench.weights import FILES

logger = logging.getLogger(__name__)

# Of which a run is not at fault: it has no record, and goes on when it is started again.
INTERRUPTIONS = (RequeueError, CorruptImageError, records.UnwritableError, LostError)


def run(
    config: DictConfig, *, command: str, repeat: str, console: Console, title: str, warned: Warned
) -> str:
    """Train, evaluate and record one configuration, unless that is done; gives back what became of it.

    That is the record's status, or `running` where another process is at it. The record names the `command`
    of which the run was a part, and that which would `repeat` it alone. What was interrupted goes on
    from its latest checkpoint. Raises ValueError for data or weights that cannot be used, before anything is
    written; and in the midst of a run, which is interrupted then, CorruptImageError, UnwritableError, and
    RequeueError once the state of a run is kept whose scheduler `warned` it.
    """
    settings = identity(config)
    folder = records.run_folder(Path(config.runtime.results), run_id(settings))
    look = partial(agreed, partial(_earlier, folder, config.runtime.retry))
    earlier = look()
    if earlier is None:
        try:
            agreed(lambda: refuse_running(folder))
            with closing(checked_by_all(lambda: load_inputs(config))) as inputs, _claimed(folder) as check:
                earlier = look()
                if earlier is None:
                    show = partial(display, console, title, config.epochs)
                    commands = {"command": command, "repeat": repeat}
                    return _run_and_record(config, settings, inputs, folder, commands, show, warned, check)
        except (RunningError, LostError) as other:
            console.print(printable(f"{title}  {other}"), markup=False, highlight=False)
            return "running"
    console.print(f"{title}  {earlier} before", markup=False, highlight=False)
    return earlier


def _earlier(folder: Path, retry: str | None) -> str | None:
    """What became of the run before, if that is to stand."""
    try:
        record = records.own_record(folder)
    except ValueError:  # it is set aside
        return None
    return None if record is None or is_left(record["status"], retry) else record["status"]


@contextmanager
def _claimed(folder: Path) -> Iterator[Callable[[], None]]:
    """Own the run; gives what raises LostError, on all ranks, once it belongs to another process."""
    attempts: list[Attempt] = []
    with ExitStack() as stack:
        agreed(lambda: attempts.append(stack.enter_context(claimed(folder))))
        yield lambda: agreed(lambda: attempts[0].check())


def _run_and_record(
    config: DictConfig,
    settings: dict[str, Any],
    inputs: Inputs,
    folder: Path,
    commands: dict[str, str],
    show: Callable[[int], AbstractContextManager[Callable[[Row], None]]],
    warned: Warned,
    check: Callable[[], None],
) -> str:
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    name, rows = run_id(settings), folder / "metrics.jsonl"
    origin = provenance(choose_device(config.runtime.device)) | commands  # before the code can change
    started = datetime.now(timezone.utc).isoformat()
    if rank() == 0:
        _clear(folder)
        records.write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    wandb_mode = config.runtime.wandb if rank() == 0 else "disabled"
    with mirror(folder, name, group_id(settings), settings, wandb_mode) as mirrored:
        with show(config.epochs * len(inputs.data.train)) as log_to_screen:

            def log(row: Row) -> None:
                check()
                if rank() == 0:
                    records.append_row(rows, row)
                    mirrored.log(row)
                    log_to_screen(row)

            measured = partial(measure, config, inputs, folder, log, warned, check)
            outcome, accumulation_steps = _with_fewer_images_at_once(config, partial(_outcome, measured))
        finished = datetime.now(timezone.utc).isoformat()
        origin |= {"accumulation_steps": accumulation_steps, "started": started, "finished": finished}
        origin |= outcome.pop("ran")
        record = {"run_id": name, **outcome, "config": settings, "provenance": origin}
        check()
        if rank() == 0:
            records.write_record(folder, record)
            mirrored.keep(record)
    return outcome["status"]


def _clear(folder: Path) -> None:
    """Take away what an earlier end of the run left; what only went wrong on the way goes on from there."""
    try:
        record = records.own_record(folder)
    except ValueError as damaged:
        logger.warning("%s, as %s", damaged, records.set_aside(folder, "damaged").name)
        record = None
    if record is not None:
        records.set_aside(folder, record["status"])
        if record["status"] == "diverged":  # it would again
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    with records.writing(folder):
        for earlier in ("correct.npy", "routing.npz", *FILES.values()):
            (folder / earlier).unlink(missing_ok=True)
        for half in folder.glob(records.HALF_WRITTEN):  # by a process that was killed
            half.unlink()
        for half in folder.glob("checkpoint/.step-*"):
            shutil.rmtree(half)


def _with_fewer_images_at_once(
    config: DictConfig, attempt: Callable[[int], dict[str, Any]]
) -> tuple[dict[str, Any], int]:
    """What a run comes to and the parts of its batches: twice as many after each lack of memory, if asked."""
    parts = config.optim.accumulation_steps
    while (outcome := attempt(parts))["status"] == "oom":
        outcome["error"] = (
            f"out of memory with {config.batch_size // parts} images at once: give runtime.retry_oom=true, "
            f"optim.accumulation_steps={2 * parts} or a smaller batch_size ({_first_line(outcome['error'])})"
        )
        logger.error(outcome["error"])
        if not config.runtime.retry_oom or not can_part(config, 2 * parts):
            break
        parts *= 2
    return outcome, parts


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _outcome(measured: Callable[[int], dict[str, Any]], accumulation_steps: int) -> dict[str, Any]:
    """What a run came to: an error is an outcome too, which the board counts."""
    nothing = {"metrics": {}, "cost": {}, "placement_blocks": [], "ran": {}}
    try:
        return {"status": "done", **measured(accumulation_steps), "error": None}
    except INTERRUPTIONS:
        raise
    except DivergedError as error:
        return {"status": "diverged", **nothing, "error": str(error)}
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
            raise KilledError(_first_line(str(error))) from error  # torch has no class for it
        if num_ranks() > 1:  # or of a rank that is dead, which is no outcome: started again, the run goes on
            raise
        # The allocator of the CPU has no error of its own.
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            return {"status": "oom", **nothing, "error": str(error)}
        logger.error("the run failed: %s: %s", type(error).__name__, error)
        return {"status": "failed", **nothing, "error": traceback.format_exc()}
