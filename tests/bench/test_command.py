"""The command from end to end, on tiny cases."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from routerbench import cli
from routerbench.bench.show import markdown, origin, print_table
from routerbench.bench.tables import Table, overview

MARKERS = "# Title\n<!-- benchmark:begin -->\nold\n<!-- benchmark:end -->\nend\n"
PEER = """
from torch import nn

class Twin(nn.Module):
    def __init__(self, width, hidden, num_experts, top_k, capacity_factor):
        super().__init__()
        assert (width, hidden, num_experts, top_k, capacity_factor) == (192, 768, 2, 1, 1.0)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
    def forward(self, x):
        return self.layers(x), {"loss": 0.0}

class Breaks(Twin):
    def forward(self, x):
        if len(x) > 1:
            raise RuntimeError("boom")
        return super().forward(x)
"""


def bench(words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["routerbench", "bench", *words.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_peer", raising=False)
    Path("a_peer.py").write_text(PEER)


def test_a_measurement_and_its_json(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (
        "layer memory --tokens 196 --experts 2 --backends bmm --peer a_peer:Twin --repeats 2 --json b.json"
    )
    assert bench(f"{words} --device cpu", monkeypatch) == 0
    out, err = capfd.readouterr()
    assert err == ""
    results = json.loads(Path("b.json").read_text())
    assert results["provenance"]["command"] == f"routerbench bench {words} --device cpu"
    assert {"commit", "versions", "device", "command"} == results["provenance"].keys()
    assert [results[name] for name in ("schema", "threads", "clock", "repeats")] == [1, 1, "CPU time", 2]
    layer, memory = results["cases"]
    assert (layer["case"], memory["kind"]) == (
        "layer token_choice ti 196 tokens E2 fp32 group=batch",
        "memory",
    )
    assert [record["name"] for record in layer["contestants"]] == ["dense", "bmm", "a_peer:Twin", "GEMM"]
    assert all(len(record["seconds"]) == 2 for record in layer["contestants"])
    dense, _, twin, _ = layer["contestants"]
    assert (twin["flops"], twin["peak_bytes"]) == (dense["flops"], dense["peak_bytes"])
    assert all(name in out for name in (layer["case"], memory["case"], "a_peer:Twin", "time over dense"))


def test_who_fails_is_code_1(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    words = "layer --tokens 392 --experts 2 --backends bmm --peer a_peer:Breaks --repeats 1 --device cpu"
    assert bench(words, monkeypatch) == 1
    assert "a_peer:Breaks failed: RuntimeError: boom" in capfd.readouterr().out


def test_an_earlier_measurement_is_shown(
    results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    results["cases"][0]["contestants"].pop(3)  # the one that failed
    Path("b.json").write_text(json.dumps(results))
    Path("docs.md").write_text(MARKERS)
    assert bench("--from b.json --paste docs.md --plot plot.png", monkeypatch) == 0
    assert "bmm      240" in capfd.readouterr().out
    text = markdown(overview(results["cases"], []), results)
    assert Path("docs.md").read_text() == MARKERS.replace("old\n", text)
    assert Path("plot.png").read_bytes().startswith(b"\x89PNG")
    assert bench("--from b.json --plot plot.svg", monkeypatch) == 0
    assert "<svg" in Path("plot.svg").read_text()


def test_there_is_nothing_to_plot_of_memory_alone(
    results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("b.json").write_text(json.dumps({**results, "cases": results["cases"][3:]}))
    assert bench("--from b.json --plot plot.svg", monkeypatch) == 2
    text = "routerbench: plot='plot.svg' has nothing to show: no layer, router or model was timed\n"
    assert capfd.readouterr().err == text


def test_where_numbers_come_from(results: dict[str, Any]) -> None:
    assert origin(results) == (
        "A CPU, 1 threads; torch 2.14.1; CPU time; 3 rounds; routerbench 0.1.0, commit 0123456789+changes: "
        "routerbench bench"
    )


def test_a_table_in_the_terminal_and_in_markdown(results: dict[str, Any]) -> None:
    table = Table("A title", ["", "Ti|S"], [["a_b", "1.00"]], ["loop refused: [red] <b>"])
    console = Console(file=io.StringIO(), width=60)
    print_table(table, console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[-3:-1] == [" a_b   1.00 ", "loop refused: [red] <b>"]
    assert markdown([table], results).partition("\n\n")[2] == (
        "### A title\n\n|  | Ti&#124;S |\n| --- | ---: |\n| a_b | 1.00 |\n\n"
        "loop refused: &#91;red&#93; &#60;b&#62;\n"
    )
