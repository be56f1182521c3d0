"""The report page in a real browser: what a person clicks, types and sees."""

import pytest
import torchvision
from selenium.webdriver.common.keys import Keys

from sgdph_fx import Report, prepare
from tests.browser.conftest import Net, Open, requests

pytestmark = pytest.mark.browser

SHOWN = "g[data-id]:not(.open)"
BLOCKS = [f"blocks.{number}" for number in range(16)]


def test_it_opens_without_a_message_and_asks_for_nothing_but_itself(report: Report, open_page: Open) -> None:
    page = open_page(report)
    assert page.problems() == []
    (own,) = requests(page)
    assert own.startswith("file:")


def test_modules_unfold_and_fold_again(report: Report, open_page: Open) -> None:
    page = open_page(report)
    # The whole would be more than the 48 parts that are unfolded at first.
    assert page.names(SHOWN) == ["input", "stem", *BLOCKS, "head", "output"]
    page.click_item("blocks.3")
    inside = ["blocks.3.conv", "blocks.3.norm", "2 operations"]
    assert page.names(SHOWN) == ["input", "stem", *BLOCKS[:3], *inside, *BLOCKS[4:], "head", "output"]
    page.click('[data-fold="blocks.3"] text')
    assert page.names(SHOWN) == ["input", "stem", *BLOCKS, "head", "output"]
    page.click('[data-fold="blocks"] text')
    assert page.names(SHOWN) == ["input", "stem", "blocks", "head", "output"]
    page.click("#unfold")
    page.click("#unfold")
    assert len(page.names(SHOWN)) == 4 + 16 * 3
    page.click("#fold")
    assert page.names(SHOWN) == ["input", "stem", *BLOCKS, "head", "output"]
    assert page.problems() == []


def test_second_order_parts_and_bare_convolutions_are_marked(report: Report, open_page: Open) -> None:
    page = open_page(report)
    page.click_item("blocks.0")
    # The bare ones have a gain; stem and head a bias, the norm a scale and a shift; a bias-free convolution nothing.
    assert page.names(".part.second") == ["stem", "blocks.0.norm", "head"]
    assert page.names(".part.bare") == ["stem", "head"]
    fill = "return getComputedStyle(document.querySelector(arguments[0])).fill"
    assert page.run(fill, ".part.second > rect") != page.run(fill, ".part:not(.second) > rect")


def test_a_click_on_a_convolution_lights_its_way_to_the_norm_and_says_why(
    report: Report, open_page: Open
) -> None:
    page = open_page(report)
    page.click_item("blocks.5")
    page.click_item("blocks.5.conv")
    assert page.names("g.lit") == ["blocks.5.conv", "blocks.5.norm"]
    assert page.run("return document.querySelectorAll('.link.lit').length") == 1
    said = page.text("#details")
    assert "blocks.5.conv" in said
    assert "normalizedkeptoutput goes to BatchNorm2d blocks.5.norm" in said
    assert "browser/conftest.py:" in said
    page.click("#details .jump")
    assert page.names("g.picked") == ["blocks.5.norm"]
    page.click("#details .close")
    assert page.names("g.lit") == page.names("g.picked") == []


def test_hovering_lights_for_as_long_as_it_lasts(report: Report, open_page: Open) -> None:
    page = open_page(report)
    page.click_item("blocks.5")
    # By the mouse itself: of its own accord Chromium tells the page what came to lie under the last click.
    page.hover_item("blocks.5.conv")
    assert page.names("g.lit") == ["blocks.5.conv", "blocks.5.norm"]
    page.hover("#search")
    assert page.names("g.lit") == []


def test_the_search_finds_rows_and_parts_and_goes_to_them(report: Report, open_page: Open) -> None:
    page = open_page(report)
    field = page.driver.find_element("id", "search")
    field.send_keys("blocks.1")
    found = [BLOCKS[1], *BLOCKS[10:]]
    assert page.rows() == [f"{block}.conv" for block in found]
    assert page.names("g.match") == found
    assert page.text("#found").startswith("14 in the graph")
    field.send_keys(Keys.ENTER)
    assert page.names("g.picked") == ["blocks.1.conv"]
    field.send_keys(Keys.ENTER, Keys.ENTER)
    assert page.names("g.picked") == ["blocks.10.conv"]


def test_tables_sort_and_filter_and_lead_to_the_graph(report: Report, open_page: Open) -> None:
    page = open_page(report)
    assert page.rows() == ["stem", *(f"{block}.conv" for block in BLOCKS), "head"]
    page.click("#table th:first-child button")
    assert page.rows()[:3] == ["blocks.0.conv", "blocks.1.conv", "blocks.2.conv"]
    page.click("#table th:first-child button")
    assert page.rows()[0] == "stem"
    assert page.run("return document.querySelector('#table th').ariaSort") == "descending"
    page.run(
        "const s = document.querySelector('#filters select'); s.value = 'bare'; s.dispatchEvent(new Event('change'))"
    )
    assert page.rows() == ["stem", "head"]
    assert page.text("#shown") == "2 of 18 rows"
    page.click("#table tbody tr:last-child td")
    assert page.names("g.picked") == ["head"]
    page.click('[role="tab"]:nth-child(2)')
    assert len(page.rows()) == len(report.plan.parameters)


def test_every_row_has_its_reason_and_its_line(report: Report, open_page: Open) -> None:
    page = open_page(report)
    for tab, rows in ((1, report.plan.convolutions), (2, report.plan.parameters)):
        page.click(f'[role="tab"]:nth-child({tab})')
        script = "return [...document.querySelectorAll('td.wide')].map((cell) => cell.innerText)"
        cells = [text.replace("\u200b", "") for text in page.run(script)]
        assert [cell.split("\n")[0] for cell in cells] == [row.reason.partition(": ")[2] for row in rows]
        assert all("browser/conftest.py:" in cell or "container.py:" in cell for cell in cells), cells


def test_the_plan_is_copied_as_it_is_saved(report: Report, open_page: Open) -> None:
    page = open_page(report)
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", grant)
    page.click("#copy")
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, (e) => done(String(e)))"
    assert page.driver.execute_async_script(read) == report.plan.to_json()


def test_a_phone_shows_all_without_scrolling_sideways(report: Report, open_page: Open) -> None:
    page = open_page(report, width=390, height=844)
    assert page.run("return document.documentElement.scrollWidth") <= 390
    page.click('[role="tab"]:nth-child(2)')
    assert page.run("return document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", ["resnet152", "densenet201"])
def test_large_models_open_in_under_two_seconds(name: str, open_page: Open) -> None:
    page = open_page(prepare(torchvision.models.get_model(name), inplace=True).report)
    assert float(page.run("return document.documentElement.dataset.ready")) < 2000
    assert 5 <= len(page.names(SHOWN)) <= 48
    assert page.problems() == []


def test_a_model_without_a_graph_still_has_its_tables(open_page: Open) -> None:
    page = open_page(Report(prepare(Net()).report.plan))
    assert page.problems() == []
    assert len(page.rows()) == 18
    assert page.run("return document.getElementById('graph').hidden")


def test_names_that_look_like_markup_stay_words(report: Report, open_page: Open) -> None:
    net = Net()
    net.add_module("</script><script>alert(1)</script>", net.head)
    del net.head
    net.__dict__["head"] = net._modules["</script><script>alert(1)</script>"]
    page = open_page(prepare(net).report)
    assert page.problems() == []
    assert page.rows()[-1] == "</script><script>alert(1)</script>"
