"""The page in a real browser: Debian's chromium with its driver, or none and these tests are skipped."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WriteRun = Callable[..., Path]
Evaluate = Callable[[Path, Any], None]
PageOf = Callable[[Path], str]
Opened = Callable[..., "Chrome"]

EVALUATIONS = {
    "capacity": {
        name: {"top1": 0.5 + 0.1 * place, "executed_flops_per_image": 1e7 * (place + 1)}
        for place, name in enumerate(("capacity_factor=0.5", "trained", "dropless=true"))
    },
    "batches": {"group=image": {"sensitivity_points": 0.5}},
    "routers": {"random": {"top1_lost_points": 12.5}},
}
SHOWN = (
    "return [...document.querySelectorAll('.board tbody tr:not([hidden]) th')].map(name => name.innerText)"
)


@pytest.fixture
def opened(shown: Opened, results: Path, write_run: WriteRun, page_of: PageOf) -> Opened:
    """A function that opens the page of a few runs in a window of this width and colour scheme."""
    write_all(write_run)

    def opened(width: int = 1280, scheme: str = "light", fragment: str = "") -> "Chrome":
        path = results / "report.html"
        path.write_text(page_of(results), encoding="utf-8")
        return shown(path.as_uri() + fragment, width, scheme)

    return opened


def write_all(write_run: WriteRun) -> None:
    """Two boards; on the first, dense has no number for what is dropped, and token_choice failed once."""
    for seed in range(2):
        write_run("dense", seed, 0.70 + 0.01 * seed, run_id=f"dense-{seed}")
        write_run("random", seed, 0.69, run_id=f"random-{seed}")
        write_run("soft", seed, 0.80 + 0.01 * seed, run_id=f"soft-{seed}")
        write_run("expert_choice", seed, 0.78 - 0.02 * seed, run_id=f"expert_choice-{seed}")
        write_run("soft", seed, 0.9, epochs=20, run_id=f"long-{seed}")
    write_run("token_choice", 0, 0.72, run_id="token_choice-0")
    write_run("token_choice", 1, None, "failed", run_id="token_choice-1")


def first_board(chrome: "Chrome") -> list[str]:
    """The names of the lines of the first board."""
    table = "document.querySelector('.board').querySelectorAll('tbody tr th')"
    names = chrome.execute_script(f"return [...{table}].map(it => it.querySelector('a').innerText)")
    assert isinstance(names, list)
    return names


def header(chrome: "Chrome", text: str) -> Any:
    """The button in the header of this text, of the first board."""
    buttons = chrome.find_elements("css selector", ".board thead button")
    return next(button for button in buttons if button.text == text)


def test_it_opens_without_errors_or_requests(opened: Opened) -> None:
    chrome = opened()
    assert chrome.title == "routerbench report"
    assert chrome.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    sent = [it["params"]["request"]["url"] for it in messages if it["method"] == "Network.requestWillBeSent"]
    assert [url for url in sent if not url.startswith("data:")] == [chrome.current_url]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_what_was_found_after_training_is_shown_on_any_screen(
    opened: Opened, results: Path, evaluate: Evaluate, width: int, scheme: str
) -> None:
    for seed in range(2):
        evaluate(results / "runs" / f"soft-{seed}" / "record.json", EVALUATIONS)
    chrome = opened(width, scheme, "#run-soft-0")
    assert chrome.get_log("browser") == []
    titles = ("Accuracy against executed FLOPs at test time", "Does the router matter?")
    for title in titles:
        figure = chrome.find_element("xpath", f"//figure[h3='{title}']//*[name()='svg']")
        assert figure.rect["width"] > 250
        assert figure.rect["height"] > 80
    assert first_board(chrome)[2] == "soft ¶"
    tables = chrome.find_elements("css selector", "#run-soft-0 details table")
    chrome.execute_script(
        "for (const one of document.querySelectorAll('#run-soft-0 details')) one.open = true"
    )
    assert [table.is_displayed() for table in tables] == [True] * len(tables)
    assert "dropless=true" in chrome.find_element("id", "run-soft-0").text
    wide, window = chrome.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window  # tables scroll within the page


def test_the_browser_would_have_told_of_a_breach(opened: Opened) -> None:
    chrome = opened()
    chrome.execute_script(
        "const it = new Image(); it.src = 'https://localhost:9/x.png'; document.body.append(it)"
    )
    chrome.execute_script("document.body.setAttribute('style', 'color: red')")
    told = " ".join(entry["message"] for entry in chrome.get_log("browser"))
    assert "img-src" in told
    assert "style-src" in told


def test_sorting_by_click_keeps_references_on_top(opened: Opened) -> None:
    chrome = opened()
    assert first_board(chrome) == ["dense", "random", "soft", "expert_choice", "token_choice †"]
    header(chrome, "top-1 %").click()
    assert first_board(chrome) == ["dense", "random", "soft", "expert_choice", "token_choice †"]
    header(chrome, "top-1 %").click()
    assert first_board(chrome) == ["random", "dense", "token_choice †", "expert_choice", "soft"]
    assert header(chrome, "top-1 %").find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    header(chrome, "router").click()
    assert first_board(chrome) == ["dense", "random", "expert_choice", "soft", "token_choice †"]
    assert len(chrome.find_elements("css selector", "[aria-sort]")) == 1


def test_lines_without_a_number_come_last_in_both_directions(opened: Opened) -> None:
    chrome = opened()
    for _ in range(2):
        header(chrome, "dropped %").click()
        assert first_board(chrome)[:2] == ["random", "dense"]  # dense drops nothing: it has a dash


def test_sorting_by_keyboard(opened: Opened) -> None:
    chrome = opened()
    header(chrome, "failed").send_keys("\ue007")  # Enter
    assert first_board(chrome)[2:] == ["token_choice †", "soft", "expert_choice"]
    header(chrome, "failed").send_keys(" ")
    assert first_board(chrome)[2:] == ["soft", "expert_choice", "token_choice †"]


def test_filtering_hides_lines_and_boards_and_says_how_many(opened: Opened) -> None:
    chrome = opened()
    field, count = (chrome.find_element("id", name) for name in ("filter", "count"))
    total = len(chrome.execute_script(SHOWN))
    assert count.text == f"{total} lines"
    field.send_keys("SOFT")
    assert chrome.execute_script(SHOWN) == ["soft", "soft vs dense", "soft vs token_choice †", "soft"]
    assert count.text == f"4 of {total} lines"
    field.clear()
    field.send_keys("expert dense")
    assert chrome.execute_script(SHOWN) == ["expert_choice vs dense"]
    shown = chrome.find_elements("css selector", "main > section:not([hidden])")
    contents = chrome.find_elements("css selector", "nav li:not([hidden])")
    assert [len(shown), len(contents)] == [1, 1]
    field.clear()
    field.send_keys("nothing like it")
    assert count.text == f"0 of {total} lines"


def test_from_a_line_to_its_run_and_back(opened: Opened) -> None:
    chrome = opened()
    run = chrome.find_element("id", "run-soft-0")
    assert not run.is_displayed()
    chrome.find_element("link text", "soft").click()
    assert chrome.find_element("css selector", ".row-page:target h4").text.startswith("soft")
    chrome.find_element("css selector", ".row-page:target .run summary").click()
    assert run.is_displayed()
    chrome.back()
    assert "#" not in chrome.current_url
    chrome.find_element("css selector", "a[href='#line-1-3']").click()
    assert chrome.find_element("css selector", "tr:target th").text.startswith("soft")


@pytest.mark.parametrize("scripts", [True, False])
def test_the_address_of_a_run_opens_its_page(opened: Opened, scripts: bool) -> None:
    chrome = opened()
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    try:
        run = opened(fragment="#run-token_choice-1").find_element("id", "run-token_choice-1")
        assert run.is_displayed()
        assert "it ended" in run.text
    finally:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_without_script_there_are_no_controls_that_do_nothing(opened: Opened) -> None:
    chrome = opened()
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chrome = opened()
        assert not chrome.find_element("id", "filter").is_displayed()
        assert chrome.find_elements("css selector", "thead button") == []
    finally:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("fragment", ["", "#run-token_choice-1"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(
    opened: Opened, write_run: WriteRun, width: int, fragment: str
) -> None:
    write_run("long" * 50, 0, 0.7, settings={"long" * 50: "long" * 50})
    chrome = opened(width, fragment=fragment)
    root = "document.documentElement"
    scrolled, room = chrome.execute_script(f"return [{root}.scrollWidth, {root}.clientWidth]")
    assert scrolled <= room <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_the_page(opened: Opened, scheme: str) -> None:
    chrome = opened(scheme=scheme)
    names = ("--ink", "--muted", "--accent", "--better", "--worse")
    style = "getComputedStyle(document.documentElement).getPropertyValue"
    grounds = [chrome.execute_script(f"return {style}('{name}')") for name in ("--paper", "--tint", "--mark")]
    for name in names:
        colour = chrome.execute_script(f"return {style}('{name}')")
        # WCAG 2.2, AA: 4.5 for text.
        assert min(contrast(colour, ground) for ground in grounds) >= 4.5, name


def test_pictures_take_the_colours_of_the_page(opened: Opened) -> None:
    ask = "return getComputedStyle(document.querySelector('.picture text')).fill"
    assert opened(scheme="light").execute_script(ask) != opened(scheme="dark").execute_script(ask)


def test_the_first_thing_that_tab_reaches_skips_to_the_boards(opened: Opened) -> None:
    chrome = opened()
    chrome.find_element("css selector", "body").send_keys("\ue004")  # Tab
    assert chrome.switch_to.active_element.text == "Skip to the boards"
    assert "solid" in chrome.execute_script("return getComputedStyle(document.activeElement).outline")


def test_on_paper_all_is_open_and_no_control_shows(opened: Opened) -> None:
    chrome = opened()
    pdf = base64.b64decode(chrome.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not chrome.find_element("id", "filter").is_displayed()
        chrome.execute_script("dispatchEvent(new Event('beforeprint'))")
        assert chrome.find_elements("css selector", "details:not([open])") == []
        chrome.execute_script("dispatchEvent(new Event('afterprint'))")
        assert len(chrome.find_elements("css selector", "details:not([open])")) > 10
    finally:
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two colours such as #1b1f24."""
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour.strip().removeprefix("#")
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (it / 12.92 if it <= 0.04045 else ((it + 0.055) / 1.055) ** 2.4 for it in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_of_black_on_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
