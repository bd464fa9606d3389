import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from routerbench.report import Board
from routerbench.report.boards.board_tables import section_of
from routerbench.report.tables.latex import escaped, latex
from routerbench.report.tables.table import Cell, Column, Line, Section, Table

WriteRun = Callable[..., Path]
Boards = Callable[..., list[Board]]

COLUMNS = [Column("router", "\nrouter"), Column("top-1 %", "top-1\n%"), Column("rank", "\nrank")]
WHOLE = r"""% Needs \usepackage{booktabs,graphicx}; for names beyond Latin letters XeLaTeX or LuaLaTeX.

\begin{table}
\centering
\caption{cifar10 \textperiodcentered{} last\_2. Pairs. test/top1.}
\label{tab:cifar10-last-2-pairs}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{@{}lrr@{}}
\toprule
router & top-1 \% & rank \\
\midrule
dense & 72.00 $\pm$ 1.50 & 1--2 \\
\midrule
a-1 \dag{} & $-$0.18 $\pm$ 3.65 & -- \\
\bottomrule
\end{tabular}
}
\par\smallskip\footnotesize \dag{} one \& two
\par\smallskip\footnotesize three
\end{table}

\begin{table}
\centering
\caption{cifar10 \textperiodcentered{} last\_2. Pairs.}
\label{tab:cifar10-last-2-pairs-2}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{@{}lrr@{}}
\toprule
router & top-1 \% & rank \\
\midrule
\bottomrule
\end{tabular}
}
\end{table}

\begin{itemize}
\item 95 \% of it
\item \{more\}
\end{itemize}
"""


def test_the_whole_text() -> None:
    lines = [
        Line([Cell("dense"), Cell("72.00 ± 1.50", 0.72), Cell("1-2", 1)]),
        Line([Cell("a-1 †"), Cell("-0.18 ± 3.65", -0.0018), Cell("-")], marked=True),
    ]
    first = Table("Pairs", "test/top1", COLUMNS, lines, 1, ["† one & two", "three"])
    section = Section("cifar10 · last_2", [first, Table("Pairs", "", COLUMNS, [])])
    assert latex([section], ["95 % of it", "{more}"]) == WHOLE


def test_a_caption_ends_in_one_full_stop() -> None:
    section = Section("a title.", [Table("Pairs", "One. Two.", COLUMNS, [])])
    assert r"\caption{a title. Pairs. One. Two.}" in latex([section], [])


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a_b{c}$#&%", r"a\_b\{c\}\$\#\&\%"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("~^<>|", r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"),
        ("\"'`", r"\symbol{34}\textquotesingle{}\textasciigrave{}"),
        ("[a]*", r"{[}a{]}{*}"),
        ("--a---b-c", "-{}-a-{}-{}-b-c"),
        ("two\nlines\x1b", r"two\textbackslash{}nlines\textbackslash{}x1b"),
        (
            "± ≤ ≥ → · † ‡ § ¶",
            r"$\pm$ $\leq$ $\geq$ $\to$ \textperiodcentered{} \dag{} \ddag{} \S{} \P{}",
        ),
    ],
)
def test_every_special_character_is_printed(text: str, printed: str) -> None:
    assert escaped(text) == printed


def test_references_alone_end_in_no_second_rule() -> None:
    table = Table("", "", COLUMNS, [Line([Cell("dense"), Cell("-"), Cell("1", 1)])], 1)
    assert latex([Section("x", [table])], []).count(r"\midrule") == 1


def test_a_board(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    write_run("dense", 0, 0.5)
    write_run("x_\\y", 0, 0.4)
    text = latex([section_of(board) for board in boards_of(results)], [])
    (dense, other, _pair) = re.findall(r"^(?:dense|x).* \\\\$", text, flags=re.MULTILINE)
    assert dense.startswith("dense & 50.00 & 1--2 & -- & 49.00 & 1 & 50.0 & 0 & 0 & -- & 0.00 & 40.0 & ")
    assert other.startswith(r"x\_\textbackslash{}y & 40.00 & 1--2 & $-$10.00 & 39.00 & 1 & ")
    assert text.count("{") == text.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_it_compiles(results: Path, write_run: WriteRun, boards_of: Boards, tmp_path: Path) -> None:
    write_run("dense", 0, 0.5)
    write_run("~^<>|_{}\\\"'`$#&%", 0, 0.4)
    text = latex([section_of(board) for board in boards_of(results)], ["± ≤ ≥ → · † ‡ §"])
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "paper.tex").write_text(f"{head}\n{text}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
