"""The page for those who read it otherwise: by keyboard, in either theme, on paper, without JavaScript."""

import base64
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from sgdph_fx import Report
from sgdph_fx.plan.entries import Hint
from tests.browser.conftest import Open, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def hinted(report: Report) -> Report:
    """The same with a hint and a frozen parameter, so that every kind of element is there."""
    plan = replace(
        report.plan, hints=(Hint("absorbed-bias", "stem", "nothing comes of it"),), frozen=("head.bias",)
    )
    return replace(report, plan=plan)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.driver.switch_to.active_element.send_keys(key)


def focus(page: Page) -> str:
    """What has the focus: the part of the graph, or the row, the tab, or else the element's id."""
    return str(
        page.run(
            "const e = document.activeElement;"
            "return e.dataset.fold ?? (e.dataset.id ? itemAt(e.dataset.id).path || itemAt(e.dataset.id).label"
            " : e.row?.name ?? (e.id || e.textContent))"
        )
    ).replace("\u200b", "")


def tab_to(page: Page, name: str) -> None:
    for _ in range(40):
        if focus(page) == name:
            return
        press(page, Keys.TAB)
    raise AssertionError(f"{name} is not reached by the Tab key")


def test_a_large_model_has_few_stops_for_the_tab_key(report: Report, open_page: Open) -> None:
    page = open_page(report)
    stops = page.run(
        "const reached = (e) => e.tabIndex === 0 && (e.offsetParent !== null || e.closest('svg'));"
        "return [...document.querySelectorAll('*')].filter(reached).length"
    )
    # Search, 3 buttons, "In words", 5 tools, a part, a tab, 2 choices, 5 columns, a row, the skip link: 22.
    assert stops <= 25
    assert page.run("return svg.querySelectorAll('[tabindex=\"0\"]').length") == 1


def test_the_first_stop_skips_to_the_tables(report: Report, open_page: Open) -> None:
    page = open_page(report)
    press(page, Keys.TAB)
    assert focus(page) == "Skip to the tables"
    assert page.run("return document.activeElement.getBoundingClientRect().left") >= 0
    press(page, Keys.ENTER)
    press(page, Keys.TAB)
    assert page.run("return document.getElementById('table').contains(document.activeElement)")


def test_arrow_keys_walk_through_the_graph_and_enter_unfolds_and_picks(
    report: Report, open_page: Open
) -> None:
    page = open_page(report)
    tab_to(page, "input")
    press(page, Keys.ARROW_DOWN)
    assert focus(page) == "stem"
    press(page, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert focus(page) == "blocks.0"
    press(page, Keys.ENTER)
    assert focus(page) == "blocks.0", "the focus stays where it was, on the head of what is unfolded"
    press(page, Keys.ARROW_DOWN)
    assert focus(page) == "blocks.0.conv"
    press(page, Keys.ENTER)
    assert page.names("g.picked") == ["blocks.0.conv"]
    press(page, Keys.ESCAPE)
    assert page.names("g.picked") == []
    press(page, Keys.ARROW_UP, Keys.SPACE)
    assert page.names('g[data-id="m:blocks.0"].folded') == ["blocks.0"]
    press(page, Keys.END)
    assert focus(page) == "output"
    assert page.run("return canvas.scrollTop") > 0, "what has the focus is in sight"
    press(page, Keys.HOME)
    assert focus(page) == "input"
    assert page.problems() == []


def test_arrow_keys_walk_through_tabs_and_rows(report: Report, open_page: Open) -> None:
    page = open_page(report)
    tab_to(page, "tab-convolutions")
    press(page, Keys.ARROW_RIGHT)
    assert focus(page) == "tab-parameters"
    press(page, Keys.ARROW_RIGHT)
    assert focus(page) == "tab-convolutions"
    tab_to(page, "stem")
    press(page, Keys.ARROW_DOWN, Keys.ENTER)
    assert page.names("g.picked") == ["blocks.0.conv"]
    press(page, Keys.END)
    assert focus(page) == "head"
    assert page.problems() == []


CONTRASTS = """
const transparent = (colour) => /, 0\\)$/.test(colour) || colour === "none" || colour === "transparent";
function behind(element) {
  const box = element.getBoundingClientRect();
  if (element.closest("svg")) {
    // What is drawn before it and lies under its middle; the innermost comes last.
    const x = box.left + box.width / 2, y = box.top + box.height / 2;
    const under = [...document.querySelectorAll("svg rect")].filter((rect) => {
      const r = rect.getBoundingClientRect();
      const before = rect.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING;
      const around = r.left <= x && x <= r.right && r.top <= y && y <= r.bottom;
      return before && around && !transparent(getComputedStyle(rect).fill);
    });
    if (under.length) return getComputedStyle(under.at(-1)).fill;
  }
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!transparent(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
}
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
  const style = getComputedStyle(element);
  if (!own || !element.getClientRects().length || element.closest("script, style")) continue;
  let opacity = 1;
  for (let e = element; e; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
  const colour = element instanceof SVGElement ? style.fill : style.color;
  const kind = element.getAttribute("class") ?? element.tagName;
  found.push([element.textContent.trim().slice(0, 30), kind, colour, behind(element), opacity]);
}
const search = document.getElementById("search");
found.push(["placeholder", "input", getComputedStyle(search, "::placeholder").color, behind(search), 1]);
return found;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("tab", ["convolutions", "parameters", "hints", "frozen"])
def test_all_words_stand_out_from_what_is_behind_them(
    hinted: Report, open_page: Open, theme: str, tab: str
) -> None:
    page = open_page(hinted, theme=theme)
    page.click(f"#tab-{tab}")
    page.click_item("blocks.0")
    page.click_item("blocks.0.conv")
    page.run("document.querySelector('.said').open = true")
    measured = page.run(CONTRASTS)
    assert len(measured) > 60
    weak = [(words, kind, contrast(ink, back)) for words, kind, ink, back, opacity in measured
            if contrast(ink, back) < 4.5 or opacity < 1]  # fmt: skip
    assert weak == []


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2 between two CSS colours ``rgb(r, g, b)``."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_measure_of_contrast_is_that_of_the_standard() -> None:
    # From WCAG's own understanding document: black on white 21, #767676 on white just above 4.5.
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(118, 118, 118)", "rgb(255, 255, 255)") == pytest.approx(4.54, abs=0.01)


def printed(page: Page, path: Path) -> list[str]:
    """The words on each page of paper, read by another program."""
    options: dict[str, Any] = {"preferCSSPageSize": True, "printBackground": True}
    path.write_bytes(base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", options)["data"]))
    text = subprocess.run(["pdftotext", "-raw", path, "-"], capture_output=True, text=True, check=True).stdout
    return text.split("\f")[:-1]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_paper_the_first_page_is_the_summary_and_no_button_is_left(
    hinted: Report, open_page: Open, theme: str, tmp_path: Path
) -> None:
    pages = printed(open_page(hinted, theme=theme), tmp_path / "page.pdf")
    assert "2 of 18 convolutions were decoupled: the bare ones" in pages[0]
    assert "blocks.{0..15}.conv" in pages[0].replace("\n", "")
    assert re.search(r"norm.weight +×16 +second-order", pages[0])
    assert "absorbed-bias" in pages[0]
    whole = re.sub(r"[\s\u200b]", "", "".join(pages))
    for button in ("Copy plan", "Save plan.json", "Unfold more", "Fit", "Search", "Dark", "Light"):
        assert button.replace(" ", "") not in whole
    for row in hinted.plan.convolutions:
        assert row.name in whole
    assert len(pages) <= 6


def test_without_javascript_there_is_the_summary_and_a_word_on_what_is_missing(
    report: Report, open_page: Open
) -> None:
    page = open_page(report, scripts=False)
    body = page.driver.find_element("tag name", "body").text
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "With JavaScript this page also shows the model as a graph" in body
    assert "2 of 18 convolutions were decoupled: the bare ones" in body
    assert "blocks.{0..15}.conv ×16 normalized" in body
    assert "Copy plan" not in body
