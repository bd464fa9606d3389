"""W&B made equal to the records of a results folder."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from routerbench.identity import group_id
from routerbench.records import each_record_and_digest, is_of, read_record
from routerbench.tracking.content import log_rows, rows_of
from routerbench.tracking.files import publish
from routerbench.tracking.server import Project
from routerbench.tracking.start import start

PER_QUESTION = 200  # runs
PAUSES = (0, 1, 2, 4)  # seconds, in which W&B takes in what it was sent
END_SECONDS = 30  # for W&B's process, which would wait for a lost network as long as it likes


@dataclass(frozen=True)
class Over:
    """A run that is over, in the folder of its name."""

    folder: Path
    digest: str

    @property
    def run_id(self) -> str:
        """By which W&B knows it."""
        return self.folder.name


@dataclass(frozen=True)
class Found:
    """What a results folder holds."""

    over: list[Over]
    going: list[str]
    """Runs without a record, which their own mirrors tell of."""
    damaged: list[Path]
    """Files that are no record of the run in whose folder they are."""


@dataclass(frozen=True)
class Outcome:
    """What became of the runs that are over."""

    equal: set[str]
    """Those that were there."""
    sent: set[str]
    left: list[str]
    """Those that W&B has not, or not whole."""
    reason: str | None
    """Why, of the last that failed."""


def look(results: Path) -> Found:
    """Find the runs of a results folder; without any where there is none."""
    over, damaged = [], []
    for path, record, digest in each_record_and_digest(results):
        if record is None or not is_of(record, path.parent):
            damaged.append(path)
        else:
            over.append(Over(path.parent, digest))
    runs = results / "runs"
    known = {path.parent.name for path in damaged} | {run.run_id for run in over}
    folders = sorted(path.name for path in runs.iterdir()) if runs.is_dir() else []
    return Found(over, [name for name in folders if name not in known], damaged)


def sync(
    over: Sequence[Over], name: str, entity: str | None, send: bool, say: Callable[[str], None]
) -> Outcome:
    """Send to the project `name` the runs that it has not with these records; without `send` only find out.

    What the network fails is left, and is sent the next time. Raises ValueError for a key or an entity that
    W&B does not know.
    """
    equal, sent, reason = set[str](), set[str](), None
    with _nothing_left_behind():
        try:
            project = Project(name, entity)
            equal = _there(project, over)
            missing = [run for run in over if run.run_id not in equal]
            for run, failure in _sending(project, missing, say) if send else ():
                reason = failure or reason
                sent |= set() if failure else {run.run_id}
        except ConnectionError as error:
            reason = str(error)
    left = [run.run_id for run in over if run.run_id not in equal | sent]
    return Outcome(equal, sent, left, reason)


def _there(project: Project, over: Sequence[Over]) -> set[str]:
    """The runs that W&B has with these records."""
    there = set[str]()
    for first in range(0, len(over), PER_QUESTION):
        asked = {run.run_id: run.digest for run in over[first : first + PER_QUESTION]}
        there |= project.has(asked.values()) & asked.keys()
    return there


def _sending(
    project: Project, missing: Sequence[Over], say: Callable[[str], None]
) -> Iterator[tuple[Over, str | None]]:
    """Send run after run; each with why W&B has it not, if so. Raises ConnectionError where it is gone."""
    for number, run in enumerate(missing, start=1):
        say(f"[{number}/{len(missing)}] {run.run_id}")
        yield run, _failure(project, run)


def _failure(project: Project, run: Over) -> str | None:
    """Send a run; gives why W&B has it not, if so. Raises ConnectionError where it is gone."""
    try:
        _send(project, run)
    except Exception as error:  # of many kinds
        project.has([run.digest])  # where W&B is gone, no other run need be tried
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    if not _arrived(project, run):
        return "W&B has not taken it in"
    shutil.rmtree(run.folder / "wandb", ignore_errors=True)  # what `wandb sync` would tell once more
    return None


def _send(project: Project, over: Over) -> None:
    """Add to the W&B run what it has not; raises what W&B raises."""
    record = read_record(over.folder)
    if record is None:
        raise ValueError("its record has been taken away")
    settings, where = record["config"], (project.name, project.entity)
    with tempfile.TemporaryDirectory() as scratch:
        run = start(Path(scratch), over.run_id, group_id(settings), settings, "online", *where)
        try:
            log_rows(run, rows_of(over.folder))
            publish(run, over.folder, record, over.digest)
        finally:
            run.finish()


def _arrived(project: Project, run: Over) -> bool:
    """Whether W&B has the run with its record."""
    for seconds in PAUSES:
        time.sleep(seconds)
        if project.has([run.digest]):
            return True
    return False


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Inside, W&B keeps files in a folder that is then removed; its process, which may still wait, ends."""
    import wandb

    names = ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(dict.fromkeys(names, scratch))
        try:
            yield
        finally:
            ending = Thread(target=wandb.teardown, daemon=True)
            ending.start()
            ending.join(END_SECONDS)  # if not by then, it ends with this process
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})
