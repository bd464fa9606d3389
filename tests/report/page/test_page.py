import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from routerbench.report import page as page_module
from routerbench.report import read_runs
from routerbench.report.page import Part, board_parts, page
from routerbench.report.tables.table import Cell, Column, Line, Section, Table

WriteRun = Callable[..., Path]
Boards = Callable[..., list]
PageOf = Callable[[Path], str]

NASTY = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 191 }}{% raw %}",
    "</style></svg></title>",
    "&amp;&#60;b&#62;",
    "$\\frac{1}$ _under_",
    "né 漢字 🎉\u202e\x1b[31m\x00",
    "\udc80",
)


class Seen(HTMLParser):
    """All elements of a page with their attributes, its text, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.script = self.error = ""
        self.within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.within = tag

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.script += data
        elif self.within != "style":
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.elements if attribute in attributes]


def write_all(write_run: WriteRun) -> None:
    for seed in range(3):
        write_run("dense", seed, 0.70 + 0.01 * seed, run_id=f"dense-{seed}")
        write_run("soft", seed, 0.75 + 0.02 * seed, run_id=f"soft-{seed}")
    write_run("hash", 0, None, "failed", run_id="hash-0")


def write_nasty(write_run: WriteRun) -> None:
    for number, name in enumerate(NASTY):
        write_run(name, 0, 0.7, run_id=f"{number}{name}".replace("/", "|").replace("\0", ""))
        write_run(name, 1, None, "failed", settings={name: name}, provenance={"command": name, name: name})
    write_run("dense", 0, 0.6)


def one_table(lines: int) -> Section:
    cells = [Line([Cell(f"row {number}"), Cell("1", 1)]) for number in range(lines)]
    return Section("many", [Table("", "", [Column("name", "\nname"), Column("value", "\nvalue")], cells)])


def test_a_line_of_the_board_with_its_numbers(results: Path, write_run: WriteRun, page_of: PageOf) -> None:
    write_all(write_run)
    text = page_of(results)
    # 0.75, 0.77, 0.79: mean 0.77, half-width 4.303 * 0.02 / sqrt(3) = 0.0497.
    assert '<td data-v="0.77">77.00 ± 4.97<' in text
    assert '<th scope="col">top-1 %</th>' in text
    assert "7 runs: 6 done, 1 failed" in text
    assert "test/top1, evaluation at train capacity, raw weights" in text
    # A missing number has no value to be sorted by.
    assert "<td>-<" in text
    assert 'data-v="nan"' not in text


def test_references_stand_apart_and_marked_lines_say_so_in_words(
    results: Path, write_run: WriteRun, page_of: PageOf
) -> None:
    write_all(write_run)
    text = page_of(results)
    references, others = re.findall(r"<tbody.*?</tbody>", text, re.DOTALL)[:2]
    assert references.startswith('<tbody class="references">')
    assert [">dense<" in references, ">hash<" in references, ">soft<" in others] == [True] * 3
    assert references.count("see the notes below</span>") == 1  # of hash, which has no finished run


def test_every_link_leads_somewhere_and_every_id_is_one(
    results: Path, write_run: WriteRun, page_of: PageOf
) -> None:
    write_all(write_run)
    write_run("soft", 0, 0.8, epochs=9, run_id="soft-0-more")
    seen = Seen(page_of(results))
    ids = seen.values("id")
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    fragments = {href[1:] for href in seen.values("href") if href.startswith("#")}
    assert fragments <= set(ids)
    assert {"run-dense-0", "run-soft-2", "run-hash-0", "run-soft-0-more"} <= set(ids)
    described = [name for value in seen.values("aria-labelledby") for name in value.split()]
    assert set(described) <= set(ids)


def test_a_failed_run_shows_its_error_and_its_command(
    results: Path, write_run: WriteRun, page_of: PageOf
) -> None:
    path = write_run("soft", 0, None, "failed", provenance={"command": "routerbench train router=soft"})
    record = json.loads(path.read_text()) | {"error": "Traceback:\n  ValueError: <no> & \x1b[31m"}
    path.write_text(json.dumps(record))
    text = page_of(results)
    assert "Traceback:\n  ValueError: &lt;no&gt; &amp; \\x1b[31m\n</pre>" in text
    assert '<pre class="command">routerbench train router=soft</pre>' in text


def test_what_repeats_a_run_goes_before_what_ran_it(
    results: Path, write_run: WriteRun, page_of: PageOf
) -> None:
    write_run("soft", 0, 0.7, provenance={"repeat": "routerbench train router=soft seed=0"})
    assert '<pre class="command">routerbench train router=soft seed=0</pre>' in page_of(results)


def test_own_settings_come_before_the_shared_ones(
    results: Path, write_run: WriteRun, page_of: PageOf
) -> None:
    write_run("soft", 0, 0.7, settings={"slots": 2})
    own, shared = re.findall(r"<dl>.*?</dl>", page_of(results), re.DOTALL)[:2]
    assert ["router.slots" in own, "optim.lr" in own] == [True, False]
    assert ["router.slots" in shared, "optim.lr" in shared, "seed" in shared] == [False, True, False]


def test_nothing_of_a_record_is_code(results: Path, write_run: WriteRun, page_of: PageOf) -> None:
    write_nasty(write_run)
    text = page_of(results)
    seen, clean = Seen(text), Seen(page("", [], [], []))
    tags = Counter(tag for tag, _ in seen.elements)
    assert [tags["script"], tags["style"], tags["img"], tags["iframe"], tags["b"]] == [1, 1, 0, 0, 0]
    assert seen.script == clean.script
    attributes = {name for _, attributes in seen.elements for name in attributes}
    assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset")]
    assert all(href.startswith(("#", "data:")) for href in seen.values("href"))
    assert "{{ 7 * 191 }}{% raw %}" in seen.text
    assert "1337" not in text
    assert "<script>alert(1)</script>" in seen.text
    assert "\\u202e\\x1b[31m\\x00" in seen.text
    assert all(char.isprintable() or char == "\n" for char in text)
    text.encode()


def test_the_policy_allows_our_style_and_script_and_no_request(
    results: Path, write_run: WriteRun, page_of: PageOf
) -> None:
    write_run("soft", 0, 0.7)
    seen = Seen(page_of(results))
    policy = next(attributes["content"] for _, attributes in seen.elements if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_same_records_give_the_same_bytes(results: Path, write_run: WriteRun, page_of: PageOf) -> None:
    write_all(write_run)
    assert page_of(results) == page_of(results)


def test_no_path_of_this_machine(results: Path, write_run: WriteRun, page_of: PageOf) -> None:
    write_all(write_run)
    assert str(results.parent) not in page_of(results)


@pytest.mark.parametrize("status", ["failed", "diverged", "oom"])
def test_a_page_of_runs_that_all_failed(
    results: Path, write_run: WriteRun, page_of: PageOf, status: str
) -> None:
    write_run("soft", 0, None, status)
    write_run("dense", 0, None, status)
    text = page_of(results)
    assert f"2 runs: 2 {status}" in text
    assert "<svg" not in text


def test_a_page_of_one_run(results: Path, write_run: WriteRun, page_of: PageOf) -> None:
    write_run("soft", 0, 0.7)
    assert "1 run: 1 done" in page_of(results)


def test_runs_without_a_folder(results: Path, write_run: WriteRun, boards_of: Boards) -> None:
    from routerbench.report import build_boards
    from routerbench.report.boards.board_tables import section_of
    from routerbench.report.runs.metric import metric_of

    write_all(write_run)
    runs = [{name: run[name] for name in run if name != "folder"} for run in read_runs(results).runs]
    boards = build_boards(runs, ["router"], metric_of("test/top1", runs), 0.003)
    text = page("", board_parts(boards, [section_of(board) for board in boards]), runs, [])
    assert "run-soft-0" in text


def test_the_heading_is_the_one_that_is_given() -> None:
    text = page("Which is <better>?", [], [], [])
    assert re.findall(r"<h1>(.*?)</h1>", text) == ["Which is &lt;better&gt;?"]


def test_two_runs_of_one_name_have_two_places(results: Path, write_run: WriteRun, page_of: PageOf) -> None:
    for seed, run_id in enumerate(("a b", "a?b", "a/b")):
        path = write_run("soft", seed, 0.7)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": run_id}))
    assert {"run-a_b", "run-a_b-2", "run-a_b-3"} <= set(Seen(page_of(results)).values("id"))


def test_a_board_of_many_lines_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "LINES", 5)
    text = page("", [Part(one_table(3)), Part(one_table(4)), Part(one_table(1))], [], [])
    assert text.count('<th scope="row">') == 5
    assert "3 lines are left out, as the page holds 5: ask for fewer boards with --where." in text


def test_runs_beyond_the_room_have_no_page_and_the_board_says_so(
    results: Path, write_run: WriteRun, page_of: PageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(write_run)
    monkeypatch.setattr("routerbench.report.page.of_boards.CHARACTERS", 1)
    text = page_of(results)
    assert len(re.findall('<article id="run-', text)) == 1
    assert "6 of its runs have no page here, as there is no room: ask for fewer boards with --where." in text


def test_boards_beyond_the_room_have_no_pictures_and_say_so(
    results: Path, write_run: WriteRun, page_of: PageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epochs in (2, 3):
        write_run("dense", 0, 0.7, epochs=epochs)
        write_run("soft", 0, 0.8, epochs=epochs)
    monkeypatch.setattr("routerbench.report.page.of_boards.BOARDS_WITH_PICTURES", 1)
    text = page_of(results)
    assert text.count("Differences, paired by seed</h3>") == 1
    assert text.count("Only the first 1 boards have pictures") == 1
    assert '<a href="#part-2">landcover32 · pocket_vit' in text


def test_long_texts_are_cut(results: Path, write_run: WriteRun, page_of: PageOf) -> None:
    write_run("soft", 0, 0.7, provenance={"device": "x" * 5000})
    text = page_of(results)
    assert "x" * 2000 + "… (5,000 characters)" in text
    assert "x" * 2001 not in text
