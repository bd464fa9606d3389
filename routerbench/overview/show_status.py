"""How runs stand, in words: once, or live."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from rich.console import Console
from rich.live import Live
from rich.text import Text

from routerbench.ledger.ledger import Standing
from routerbench.overview.status import Status, progress_of
from routerbench.printable import printable
from routerbench.progress import news
from routerbench.records import read_record, run_folder
from routerbench.sweep.named import MOST_NAMED, bounded, counts_line, named_lines

REFRESH_SECONDS = 2.0
SHARE_OF_LOOKING = 0.1  # at most, of the time, however large the folder is


def lines(status: Status, everything: bool) -> Iterator[str]:
    """Counts, every run that is neither done nor missing with its reason or progress, the latest results."""
    yield from map(printable, _lines(status, everything))


def _lines(status: Status, everything: bool) -> Iterator[str]:
    yield f"{status.results}: {counts_line(status.counts) or 'no runs'}"
    runs = [(run_id, _with_progress(status, run_id, one)) for run_id, one in status.standings.items()]
    yield from named_lines(status.results, runs, everything)
    damaged = [f"damaged: {path} is no record of a run" for path in status.damaged]
    yield from damaged if everything else bounded(damaged)
    for entry in status.recent():
        top1 = "" if entry.top1 is None else f"  top-1 {entry.top1:.1%}"
        when = (entry.finished or "")[:16].replace("T", " ")
        yield f"latest: {when} UTC{top1}  {run_folder(status.results, entry.run_id)}"


def tracebacks(status: Status, everything: bool) -> Iterator[str]:
    """The whole error of each run that has one, below its folder."""
    failed = [run_id for run_id, one in status.standings.items() if one.entry and one.entry.error]
    for run_id in failed if everything else failed[:MOST_NAMED]:
        folder = run_folder(status.results, run_id)
        record = read_record(folder)
        if record is not None:  # it may be running again
            error = (record["error"] or "").rstrip().split("\n")
            yield from ["", *map(printable, [str(folder), *error])]


def show_live(look: Callable[[], Status], everything: bool, console: Console) -> Status:
    """Look again and again until all runs are over or Ctrl-C; gives what was seen last."""
    began = time.monotonic()
    status = look()
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(Text("\n".join(lines(status, everything))), refresh=True)
                if not status.num_left:
                    break
                time.sleep(max(REFRESH_SECONDS, (time.monotonic() - began) / SHARE_OF_LOOKING))
                began = time.monotonic()
                status = look()
    except KeyboardInterrupt:  # the way to leave it
        pass
    return status


def _with_progress(status: Status, run_id: str, standing: Standing) -> Standing:
    """With how far it has come, of a run under way."""
    progress = progress_of(run_folder(status.results, run_id)) if standing.state == "running" else None
    if progress is None:
        return standing
    row = progress.row
    parts = [
        news(row, progress.epochs),
        f"step {row['step']}",
        *([standing.detail] if standing.detail else []),
    ]
    return replace(standing, detail="  ".join(parts))
