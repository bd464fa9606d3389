"""The page of a run: escaped, self-contained, with every picture and number."""

import re
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from routerbench.inspection.chosen import Choice
from routerbench.inspection.figures.shown import ShownImages
from routerbench.inspection.page import page
from routerbench.inspection.page.chapters import Known, chapters
from routerbench.inspection.routing_of import LayerRouting
from routerbench.inspection.seeing.kept import Expected, keep, read_kept

if TYPE_CHECKING:
    from routerbench.inspection.seeing.seen import LayerSeen, Seen

MakeLayer = Callable[..., "LayerSeen"]
MakeSeen = Callable[..., "Seen"]
EXPERT = [[0, 0, 0, 1, -1], [0, 1, 1, 1, 1]]
RECORD: dict[str, Any] = {
    "run_id": "digits-<i>vit-soft-s0-0123456789",
    "config": {"router": {"name": "so<b>ft"}, "seed": 3, "data": {"name": "digits"}},
    "metrics": {"test/top1": 0.8765},
}
NUMBERS = {"blocks.1/class": 0.25, "blocks.1/class_low": 0.2, "blocks.1/class_high": 0.3}


class Links(HTMLParser):
    """What a page refers to, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


@pytest.fixture
def known(make_layer: MakeLayer, make_seen: MakeSeen, tmp_path: Path) -> Known:
    layers = [make_layer(EXPERT), make_layer(EXPERT, name="blocks.2")]
    seen = make_seen(*layers, labels=[0, 1], names=("<script>", "b"))
    return Known(tmp_path, seen, layers, NUMBERS, ShownImages(np.array([0, 1]), np.ones((2, 4, 4, 3))))


def test_the_page_shows_numbers_and_pictures(known: Known) -> None:
    found = chapters(known)
    text = page(RECORD, known.layers, NUMBERS, found)
    assert "0.25 [0.20, 0.30]" in text
    assert "<dt>top-1 %<dd>87.65" in text
    assert "<dt>balanced accuracy %<dd>-" in text
    assert Links(text).tags.count("figure") == sum(len(chapter.drawn) for chapter in found)
    assert "No token is served by two experts" in text
    assert text == page(RECORD, known.layers, NUMBERS, chapters(known))


def test_nothing_of_others_is_markup(known: Known) -> None:
    text = page(RECORD, known.layers, NUMBERS, chapters(known))
    assert "<dd>so&lt;b&gt;ft" in text
    assert "&lt;script&gt;" in text
    assert not {"script", "b", "i"} & set(Links(text).tags)


def test_the_page_refers_to_itself_and_to_files_beside_it(known: Known) -> None:
    found = chapters(known)
    names = {one.name for chapter in found for one in chapter.drawn}
    links = Links(page(RECORD, known.layers, NUMBERS, found, ("pdf",))).links
    endings = {link.rpartition(".")[2] for link in links if not link.startswith(("#", "data:"))}
    assert endings == {"csv", "svg", "pdf"}
    for link in links:
        beside = re.fullmatch(r"([\w.]+)\.(csv|svg|pdf)", link)
        assert link.startswith(("#", "data:")) or (beside and beside[1] in names), link


def test_layers_without_a_grid_have_no_place_on_images(known: Known, make_layer: MakeLayer) -> None:
    flat = make_layer(EXPERT, name="blocks.3", grid=(1, 4))
    alone = Known(known.folder, known.seen, [flat], {}, known.shown)
    names = [one.name for chapter in chapters(alone) for one in chapter.drawn]
    assert "experts_by_class" in names
    assert not [name for name in names if name.startswith(("images", "experts_by_position"))]
    assert any("blocks.3 lie in no grid" in remark for one in chapters(alone) for remark in one.remarks)


@pytest.fixture
def expected(known: Known) -> Expected:
    """What the run of these layers says of them."""
    zeros = dict.fromkeys(("gates", "share"), np.zeros((1, 5, 3), np.float32))
    zeros |= dict.fromkeys(("gate", "slots"), np.zeros((1, 5), np.float32))
    of_tokens: dict[str, Any] = dict.fromkeys(("expert", "first"), np.zeros((1, 5), np.int64))
    one = LayerRouting(
        **zeros,
        **of_tokens,
        dropped=np.zeros((1, 5), bool),
        grid=(2, 2),
        num_prefix=1,
        dispatch=None,
        combine=None,
    )
    return Expected(known.seen.labels, known.seen.class_names, {"blocks.1": one, "blocks.2": one})


def test_what_was_seen_comes_back(known: Known, tmp_path: Path, expected: Expected) -> None:
    keep(tmp_path, known.seen, "today")
    back = read_kept(tmp_path, "today", expected)
    assert back is not None
    assert back.class_names == known.seen.class_names
    assert back.layers[1].name == "blocks.2"
    assert back.layers[0].grid == (2, 2)
    np.testing.assert_array_equal(back.layers[0].expert, known.seen.layers[0].expert)
    assert back.layers[0].gate.dtype == known.seen.layers[0].gate.dtype


def test_what_was_kept_of_another_training_is_not_taken(
    known: Known, tmp_path: Path, expected: Expected
) -> None:
    assert read_kept(tmp_path, "today", expected) is None
    keep(tmp_path, known.seen, "yesterday")
    assert read_kept(tmp_path, "today", expected) is None


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nothing", b"\x93NUMPY"])
def test_what_is_damaged_is_not_taken(tmp_path: Path, damage: bytes, expected: Expected) -> None:
    (tmp_path / "seen.npz").write_bytes(damage)
    assert read_kept(tmp_path, "today", expected) is None


def test_what_would_run_code_is_not_taken(tmp_path: Path, expected: Expected) -> None:
    objects = np.array({"a": 1}, dtype=object)
    np.savez(tmp_path / "seen.npz", allow_pickle=True, run=objects)
    assert read_kept(tmp_path, "today", expected) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", np.array([1, 1])),
        ("labels", np.zeros(3, np.int64)),
        ("labels", np.array([0.0, 1.0])),
        ("predicted", np.array([0, 2])),
        ("0/expert", np.full((2, 5), 3, np.int16)),
        ("1/first", np.full((2, 5), -1, np.int16)),
        ("1/together", np.zeros((4, 4), np.float32)),
    ],
)
def test_what_does_not_fit_the_run_is_not_taken(
    known: Known, tmp_path: Path, expected: Expected, name: str, value: np.ndarray
) -> None:
    keep(tmp_path, known.seen, "today")
    with np.load(tmp_path / "seen.npz") as file:
        arrays: dict[str, Any] = {**file, name: value}
    np.savez(tmp_path / "seen.npz", **arrays)
    assert read_kept(tmp_path, "today", expected) is None


@pytest.mark.parametrize("error", [MemoryError, zlib.error])
def test_what_cannot_be_unpacked_is_not_taken(
    known: Known, tmp_path: Path, expected: Expected, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **settings: Any) -> Any:
        raise error

    keep(tmp_path, known.seen, "today")
    monkeypatch.setattr(np.lib.format, "read_array", fail)
    assert read_kept(tmp_path, "today", expected) is None


def test_images_are_chosen(make_layer: MakeLayer, make_seen: MakeSeen) -> None:
    seen = make_seen(make_layer(EXPERT * 3), labels=[2, 0, 2, 0, 0, 0], names=("a", "b", "c"))
    assert Choice().places(seen).tolist() == [1, 0]  # the first of a, the first of c
    assert Choice(images=(5, 3)).places(seen).tolist() == [5, 3]
    assert Choice(classes=("c", "a")).places(seen).tolist() == [0, 2, 1, 3, 4, 5]
    # Images 0, 2 and 4 have a dropped token.
    assert Choice(most=3).places(seen).tolist() == [1, 3, 5]
    assert Choice(least=2).places(seen).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice(images=(6,)), "--images=6 is not there: the test set has 0 to 5"),
        (Choice(images=(-1,)), "--images=-1 is not there: the test set has 0 to 5"),
        (Choice(classes=("d",)), "--classes=d is not one of: a, b, c"),
        (Choice(classes=("b",)), "--classes=b has no image in the test set: name another one"),
    ],
)
def test_images_that_are_not_there_are_refused(
    make_layer: MakeLayer, make_seen: MakeSeen, choice: Choice, words: str
) -> None:
    seen = make_seen(make_layer(EXPERT * 3), labels=[2, 0, 2, 0, 0, 0], names=("a", "b", "c"))
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        choice.check(seen.labels, seen.class_names)
