"""The page in a real browser: Debian's chromium with its driver, or none and these tests are skipped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from routerbench.inspection.figures.shown import ShownImages
from routerbench.inspection.figures.slots import Mixtures
from routerbench.inspection.page import page
from routerbench.inspection.page.chapters import Known, chapters

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from routerbench.inspection.seeing.seen import LayerSeen, Seen

MakeLayer = Callable[..., "LayerSeen"]
MakeSeen = Callable[..., "Seen"]
Opened = Callable[..., "Chrome"]

LAYERS = ("blocks.1", "blocks.3", "stages.2.blocks.10.of_a_long_name")


@pytest.fixture(scope="module")
def text(make_layer: MakeLayer, make_seen: MakeSeen, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything on it: 12 experts, dropped patches, slots, training, seeds and checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    expert = random.integers(-1, 12, (8, 17))
    both = random.random((12, 12), np.float32)
    layers = [make_layer(expert, 12, name, (4, 4), together=both) for name in LAYERS]
    seen = make_seen(*layers, labels=random.integers(0, 3, 8), names=("a", "<b>", "c" * 60))
    rows = [{"step": step, f"routing/{name}/load_cv": 0.5} for step in (1, 2) for name in LAYERS]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whats = ("class", "position", "weight_similarity", "agreement", "image_similarity")
    numbers = {f"{name}/{what}": 0.5 for name in LAYERS for what in whats}
    weights = random.random((8, 17, 12, 2))
    known = Known(
        folder=folder,
        seen=seen,
        layers=layers,
        numbers=numbers,
        shown=ShownImages(np.arange(8), random.random((8, 8, 8, 3))),
        mixtures=[Mixtures(LAYERS[0], (4, 4), 1, weights / weights.sum(1, keepdims=True), weights)],
        seeds=numbers,
        num_seeds=2,
        checkpoints={1: dict.fromkeys(LAYERS, 0.5), 2: dict.fromkeys(LAYERS, 1.0)},
    )
    record = {"run_id": "run-" + "long_" * 30, "config": {"router": {"name": "<soft>"}, "seed": 0}}
    return page(record, layers, numbers, chapters(known))


@pytest.fixture
def opened(shown: Opened, text: str, tmp_path: Path) -> Opened:
    """A function that opens the page in a window of this width and colour scheme."""

    def opened(width: int = 1280, scheme: str = "light") -> "Chrome":
        path = tmp_path / "index.html"
        path.write_text(text, encoding="utf-8")
        return shown(path.as_uri(), width, scheme)

    return opened


def test_it_opens_without_errors_or_requests(opened: Opened) -> None:
    chrome = opened()
    assert chrome.title.endswith("what its routers do")
    assert chrome.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    sent = [it["params"]["request"]["url"] for it in messages if it["method"] == "Network.requestWillBeSent"]
    assert [url for url in sent if not url.startswith("data:")] == [chrome.current_url]


def test_every_picture_has_a_size_and_a_name(opened: Opened) -> None:
    chrome = opened()
    pictures = chrome.find_elements("css selector", "figure svg.picture")
    assert len(pictures) == len(chrome.find_elements("css selector", "figure")) >= 15
    assert all(picture.size["width"] > 300 and picture.size["height"] > 40 for picture in pictures)
    titles = "[...document.querySelectorAll('svg.picture > title')].map(it => it.textContent)"
    assert all(chrome.execute_script(f"return {titles}"))
    ids = chrome.execute_script("return [...document.querySelectorAll('[id]')].map(it => it.id)")
    assert len(ids) == len(set(ids))


def test_images_in_pictures_are_drawn(opened: Opened) -> None:
    chrome = opened()
    sizes = "[...document.querySelectorAll('svg.picture image')].map(it => it.getBoundingClientRect().width)"
    widths = chrome.execute_script(f"return {sizes}")
    assert len(widths) > 30
    assert min(widths) > 5


@pytest.mark.parametrize("width", [320, 400, 1280])
def test_the_page_never_scrolls_sideways(opened: Opened, width: int) -> None:
    chrome = opened(width)
    root = "document.documentElement"
    scrolled, room = chrome.execute_script(f"return [{root}.scrollWidth, {root}.clientWidth]")
    assert scrolled <= room <= width


def test_the_table_is_read_beside_its_layers_on_a_phone(opened: Opened) -> None:
    chrome = opened(400)
    box = chrome.find_element("css selector", ".box:has(table)")
    chrome.execute_script("arguments[0].scrollLeft = 1000", box)
    name, last = (box.find_element("css selector", f"tbody tr {cell}") for cell in ("th", "td:last-child"))
    assert name.location["x"] >= 0
    assert last.location["x"] + last.size["width"] <= 400
    assert last.location["x"] >= name.location["x"] + name.size["width"] - 1


def test_pictures_take_the_colours_of_the_page(opened: Opened) -> None:
    ask = "return getComputedStyle(document.querySelector('.picture text')).fill"
    assert opened(scheme="light").execute_script(ask) != opened(scheme="dark").execute_script(ask)


def test_numbers_on_images_keep_their_colour_in_the_dark(opened: Opened) -> None:
    ask = "return [...document.querySelectorAll('.picture text')].map(it => getComputedStyle(it).fill)"
    light, dark = (opened(scheme=scheme).execute_script(ask) for scheme in ("light", "dark"))
    on_images = {"rgb(0, 0, 0)", "rgb(255, 255, 255)"}
    kept = [fill for fill, other in zip(light, dark, strict=True) if fill == other]
    assert set(kept) <= on_images
    assert len(kept) > 100
