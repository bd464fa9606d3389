from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from routerbench.report import Board
from routerbench.report.boards.board_tables import section_of
from routerbench.report.tables.terminal import print_sections

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]

ROUTERS = ("soft", "expert_choice", "sinkhorn_expert_choice", "sinkhorn_token_choice", "sparse_expert_choice")

WIDE = """\
landcover32 · pocket_vit · placement last_2 · 8 experts · capacity factor 1 · group image · 8 epochs
test/top1, evaluation at train capacity, raw weights
               top-1         minus dense  bal-             each
router             % rank         points anced n           seed
───────────────────────────────────────────────────────────────
dense  72.00 ±  6.57  2-4      -         71.00 3 70.0 71.0 75.0

soft   82.00 ±  4.97  1-3 +10.00 ±  2.48 81.00 3 80.0 82.0 84.0
noisy  75.00 ± 12.71  1-4  +4.50 ± 19.06 74.00 2    76.0 74.0 -
once   60.00          1-4 -10.00         59.00 1       60.0 - -

       fail- diver- drop- slots MFLOP params active   img train peak
router    ed    ged ped % /tok.  /img      M      M    /s     s  GiB
────────────────────────────────────────────────────────────────────
dense      0      0     -  0.00  40.0   1.20   1.20 2,480  14.2 0.50

soft       0      0  12.5  1.00  41.2   4.60   1.20 1,310  31.5 0.50
noisy      0      0  12.5  1.00  41.2   4.60   1.20 1,310  31.5 0.50
once       0      0  12.5  1.00  41.2   4.60   1.20 1,310  31.5 0.50

Pairs
Each row minus its dense twin: 2 pairs tested, alpha 0.05, delta 0.3 points.
                   difference      p                                published
pair                   points (Holm)    verdict seeds                  points
─────────────────────────────────────────────────────────────────────────────
soft vs dense  +10.00 ±  2.48  0.007     better     3 +7.62 (+1.50 to +14.10)
noisy vs dense  +4.50 ± 19.06  0.205  undecided     2                       -
once vs dense  -10.00              - not tested     1                       -
"""


def shown(boards: Sequence[Board], width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), color_system=None)
    print_sections([section_of(board) for board in boards], ["a remark"], console)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def write_all(write_run: WriteRun) -> None:
    for seed in range(3):
        write_run("dense", seed, 0.70 + 0.01 * seed)
        for router in ROUTERS:
            write_run(router, seed, 0.8 - 0.02 * seed)


def test_the_whole_table(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    for seed, (dense, soft) in enumerate([(0.70, 0.80), (0.71, 0.82), (0.75, 0.84)]):
        write_run("dense", seed, dense)
        write_run("soft", seed, soft)
    write_run("noisy", 0, 0.76)
    write_run("noisy", 1, 0.74)
    write_run("once", 0, 0.60)
    assert shown(boards_of(results), 100)[: len(WIDE.splitlines())] == WIDE.splitlines()


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (140, 1), (80, 3), (50, 5)])
def test_a_narrow_console_gets_more_tables(
    results: Path, write_run: WriteRun, boards_of: Boards, width: int, tables: int
) -> None:
    write_all(write_run)
    lines = shown(boards_of(results), width)
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("dense ") for line in lines) == tables
    assert not any("…" in line for line in lines)
    assert any("80.00" in line or "78.00 ± 4.97" in line for line in lines)


def test_names_show_literally(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("[red]x|<b>\x1b[31m", 0, 0.8)
    assert any(line.startswith("[red]x|<b>\\x1b[31m ") for line in shown(boards_of(results), 120))


def test_notes_and_remarks_stand_below(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("soft", 0, 0.8)
    write_run("soft", 1, None, "diverged")
    lines = shown(boards_of(results), 120)
    assert lines.index("† not every run of this row finished: its numbers stand for those that did") > 5
    assert lines[-1] == "a remark"
