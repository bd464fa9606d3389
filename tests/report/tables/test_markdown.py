from collections.abc import Callable
from pathlib import Path

import pytest

from routerbench.report import Board
from routerbench.report.boards.board_tables import LEGEND, section_of
from routerbench.report.tables.markdown import escaped, markdown

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]

BOARD = """\
## landcover32 · pocket_vit · placement last_2 · 8 experts · capacity factor 1 · group image · 8 epochs

test/top1, evaluation at train capacity, raw weights

| router | top-1 % | rank | minus dense, points | balanced % | n | each seed | failed | diverged | dropped % \
| slots/token | MFLOPs/image | params M | active M | images/s | train s | peak GiB |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: \
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| dense | 72.00 ± 6.57 | 2 | - | 71.00 | 3 | 70.0 71.0 75.0 | 0 | 0 | - \
| 0.00 | 40.0 | 1.20 | 1.20 | 2,480 | 14.2 | 0.50 |
| soft † | 82.00 ± 4.97 | 1 | +10.00 ± 2.48 | 81.00 | 3 | 80.0 82.0 84.0 | 1 | 1 | 12.5 \
| 1.00 | 41.2 | 4.60 | 1.20 | 1,310 | 31.5 | 0.50 |
| expert_choice | - | - | - | - | 0 | - | 0 | 1 | - \
| - | - | - | - | - | - | - |

† not every run of this row finished: its numbers stand for those that did\\
Failed runs that were out of memory: soft 1

### Pairs

Each row minus its dense twin: 1 pair tested, alpha 0.05, delta 0.3 points.

| pair | difference, points | p (Holm) | verdict | seeds | published, points |
| --- | ---: | ---: | ---: | ---: | ---: |
| soft † vs dense | +10.00 ± 2.48 | 0.003 | better | 3 | +7.62 (+1.50 to +14.10) |

With 3 seeds a difference below 3.26 points would hardly be seen (power 0.8, 1 pair)\\
† not every run finished: the verdict stands for the seeds that did

"""


def test_the_whole_text(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    for seed, (dense, soft) in enumerate([(0.70, 0.80), (0.71, 0.82), (0.75, 0.84)]):
        write_run("dense", seed, dense)
        write_run("soft", seed, soft)
    write_run("soft", 3, None, "diverged")
    write_run("soft", 4, None, "oom")
    write_run("expert_choice", 0, None, "diverged")
    text = markdown([section_of(*boards_of(results))], [*LEGEND, "a remark"], "##")
    assert text == BOARD + "".join(f"- {line}\n" for line in [*LEGEND, "a remark"])


def test_flops_in_the_unit_of_the_board(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    path = write_run("soft", 0, 0.8)
    path.write_text(path.read_text().replace("41250000", "4125000000"))
    text = markdown([section_of(*boards_of(results))], [], "##")
    assert "| slots/token | GFLOPs/image |" in text
    assert "| 1.00 | 4.12 |" in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("token_choice top_k=2", "token_choice top_k=2"),
        ("a|b", "a&#124;b"),
        (r"a\|b", "a&#92;&#124;b"),
        ("<b>x</b> & y", "&#60;b&#62;x&#60;/b&#62; &#38; y"),
        ("_a_ *b* `c` ~d~", "&#95;a&#95; &#42;b&#42; &#96;c&#96; &#126;d&#126;"),
        ("[red](x)", "&#91;red&#93;(x)"),
        ("two\nlines", "two&#92;nlines"),
        ("\x1b[31mred\ud800", "&#92;x1b&#91;31mred&#92;ud800"),
    ],
)
def test_names_show_literally(name: str, text: str) -> None:
    assert escaped(name) == text
