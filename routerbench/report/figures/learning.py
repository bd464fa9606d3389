"""Learning curves: test accuracy and training loss by epoch, mean and interval over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from routerbench.figures.panels import panel_title, panels
from routerbench.figures.picture import Picture
from routerbench.figures.style import ACCENT, MUTED, WORSE, drawing
from routerbench.report.boards.board import Board
from routerbench.report.boards.cells import DENSE
from routerbench.report.boards.rows import Row
from routerbench.report.figures.curves import Curves, read_curves
from routerbench.report.runs.run import Run
from routerbench.stats import CONFIDENCE, Estimate, t_interval

LOSS = "train/task_loss"
MAX_ROWS = 12

ByEpoch = Mapping[int, float]


@dataclass(frozen=True)
class _Lines:
    """What one panel shows: the runs that finished, and those that did not."""

    label: str
    is_dense: bool
    done: Sequence[ByEpoch]
    unfinished: Sequence[ByEpoch]


def learning_curves(board: Board) -> list[Picture]:
    """A picture of the board's metric and one of the training loss, of those that any run's folder tells."""
    rows = board.rows[:MAX_ROWS]
    read = [[_curves(run, board.metric.name) for run in row.runs] for row in rows]
    remarks = _remarks(read, len(board.rows) - len(rows))
    shown = ((board.metric.name, board.metric.label, 100.0), (LOSS, "training loss", 1.0))
    pictures = []
    for name, label, scale in shown:
        lines = [_lines_of(row, curves, name, scale) for row, curves in zip(rows, read, strict=True)]
        told = [one for one in lines if one.done or one.unfinished]
        if told:
            pictures.append(_picture(told, label, remarks))
    return pictures


def _curves(run: Run, metric: str) -> Curves:
    return read_curves(run["folder"], (metric, LOSS)) if "folder" in run else Curves({}, 0)


def _lines_of(row: Row, curves: Sequence[Curves], name: str, scale: float) -> _Lines:
    done, unfinished = [], []
    for run, one in zip(row.runs, curves, strict=True):
        if name in one.values:
            scaled = {epoch: scale * value for epoch, value in one.values[name].items()}
            (done if run["status"] == "done" else unfinished).append(scaled)
    return _Lines(row.label, row.router == DENSE, done, unfinished)


def _remarks(read: Sequence[Sequence[Curves]], rows_left_out: int) -> list[str]:
    damaged = sum(curves.damaged for row in read for curves in row)
    remarks = [f"Lines of metrics.jsonl that could not be read: {damaged}."] if damaged else []
    return remarks + ([f"The last {rows_left_out} rows are not drawn."] if rows_left_out else [])


def _picture(shown: Sequence[_Lines], label: str, remarks: Sequence[str]) -> Picture:
    dense = next((_estimates(panel.done) for panel in shown if panel.is_dense), {})
    with drawing():
        figure, grid = panels(len(shown), 1.5, "epoch", label, share=True)
        for axes, panel in zip(grid, shown, strict=True):
            _draw(axes, panel, dense)
    return Picture(
        f"Learning curves: {label.removesuffix(' %')}",
        " ".join([_words(shown, bool(dense)), *remarks]),
        figure,
    )


def _draw(axes: Axes, panel: _Lines, dense: Mapping[int, Estimate]) -> None:
    if not panel.is_dense and dense:
        axes.plot(list(dense), [one.mean for one in dense.values()], color=MUTED, linewidth=1, dashes=(3, 2))
    for run in panel.unfinished:
        axes.plot(list(run), list(run.values()), color=WORSE, linewidth=0.9, dashes=(1, 1.2))
    estimates = _estimates(panel.done)
    epochs = list(estimates)
    low, mean, high = ([getattr(one, name) for one in estimates.values()] for name in ("low", "mean", "high"))
    axes.fill_between(epochs, low, high, color=ACCENT, alpha=0.22, linewidth=0)
    marker = "." if len(epochs) == 1 else ""
    axes.plot(epochs, mean, color=ACCENT, linewidth=1.5, marker=marker)
    axes.set_title(panel_title(panel.label), size=8)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y")


def _estimates(runs: Sequence[ByEpoch]) -> dict[int, Estimate]:
    """By epoch, over the runs that tell of it."""
    epochs = sorted({epoch for run in runs for epoch in run})
    return {epoch: t_interval([run[epoch] for run in runs if epoch in run], CONFIDENCE) for epoch in epochs}


def _words(shown: Sequence[_Lines], with_dense: bool) -> str:
    words = "Mean over the seeds that finished, by epoch, with its 95 % t-interval."
    words += " Dashed: dense." if with_dense and len(shown) > 1 else ""
    return words + (" Dotted: runs that did not finish." if any(panel.unfinished for panel in shown) else "")
