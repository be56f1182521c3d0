"""Finding one's way on the page: zoom, search, links to a row, and models of any size."""

from dataclasses import replace
from urllib.parse import quote

import pytest
import torchvision
from selenium.webdriver.common.keys import Keys
from torch import nn

from sgdph_fx import Report, prepare
from sgdph_fx.plan.entries import ConvolutionEntry, Hint, ParameterEntry
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report.graph_view import GraphView, Part
from tests.browser.conftest import Open, Page

pytestmark = pytest.mark.browser

IN_SIGHT = """
const outer = document.getElementById("canvas").getBoundingClientRect();
const inner = document.querySelector(arguments[0]).getBoundingClientRect();
return { inside: inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1 && inner.left >= outer.left - 1
  && inner.right <= outer.right + 1, height: inner.height };
"""


def test_fit_fits_whatever_the_size(open_page: Open) -> None:
    page = open_page(prepare(torchvision.models.get_model("densenet201"), inplace=True).report)
    for _ in range(2):
        page.click("#unfold")
    page.click("#whole")
    assert page.run(IN_SIGHT, "#svg")["inside"]


def test_a_row_that_is_selected_shows_its_part_large_enough_to_read(open_page: Open) -> None:
    page = open_page(prepare(torchvision.models.get_model("resnet50"), inplace=True).report)
    page.click("#unfold")
    page.click("#whole")
    page.click("#tab-convolutions")
    page.click("#table tbody tr:nth-child(40) td")
    seen = page.run(IN_SIGHT, "g.picked")
    assert seen["inside"]
    assert seen["height"] >= 20


def test_the_zoom_keeps_the_middle_where_it_is(report: Report, open_page: Open) -> None:
    page = open_page(report)
    page.run("canvas.scrollTop = 300")
    middle = "return (canvas.scrollTop + canvas.clientHeight / 2) / scale"
    before = page.run(middle)
    page.click("#larger")
    assert page.run(middle) == pytest.approx(before, rel=0.02)


def test_a_search_that_finds_nothing_here_says_where_it_does(report: Report, open_page: Open) -> None:
    page = open_page(report)
    field = page.driver.find_element("id", "search")
    field.send_keys("norm.bias")
    assert page.rows() == []
    assert "No row here has “norm.bias”." in page.text("#table")
    assert page.text("#tab-convolutions") == "Convolutions0 of 18"
    assert page.text("#tab-parameters") == "Parameters16 of 54"
    page.click("#table .empty button")
    assert page.rows() == [f"blocks.{n}.norm.bias" for n in range(16)]
    field.send_keys("es")
    assert page.text("#table").strip() == "No row here has “norm.biases”."
    field.send_keys(Keys.BACKSPACE * 11)
    assert page.text("#tab-parameters") == "Parameters54"


def test_choices_that_leave_nothing_say_so(report: Report, open_page: Open) -> None:
    page = open_page(report)
    for place, value in ((0, "bare"), (1, "kept")):
        page.run(
            "const s = document.querySelectorAll('#filters select')[arguments[0]];"
            "s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
            place, value,
        )  # fmt: skip
    assert "No row here is of the kinds that were chosen" in page.text("#table")


def test_it_opens_on_the_tab_that_tells_most(report: Report, open_page: Open) -> None:
    chosen = "return document.querySelector('[role=tab][aria-selected=true]').id"
    assert open_page(report).run(chosen) == "tab-convolutions"
    plain = prepare(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))).report
    assert [hint.code for hint in plain.plan.hints] == ["absorbed-bias"]
    assert open_page(plain).run(chosen) == "tab-hints"
    assert open_page(replace(plain, plan=replace(plain.plan, hints=()))).run(chosen) == "tab-parameters"


def test_a_hint_says_what_to_do_and_leads_to_its_place(report: Report, open_page: Open) -> None:
    hinted = replace(
        report, plan=replace(report.plan, hints=(Hint("zero-filter", "head", "1 of 2 is zero"),))
    )
    page = open_page(hinted)
    page.click("#tab-hints")
    assert "Initialise them, unless zero was meant." in page.text("#table")
    page.click("#table tbody td")
    assert page.names("g.picked") == ["head"]


def test_a_row_has_an_address_that_leads_back_to_it(report: Report, open_page: Open) -> None:
    page = open_page(report)
    page.click("#tab-parameters")
    page.click("#table tbody tr:nth-child(5) td")
    name = page.rows()[4]
    address = page.run("return location.hash")
    assert address == f"#parameters/{name}"
    again = open_page(report, row=address)
    assert again.run("return document.querySelector('tr.picked').row.name") == name
    assert again.names("g.picked") == ["blocks.0.norm"]
    assert again.run(IN_SIGHT, "g.picked")["inside"]
    again.run("location.hash = '#convolutions/blocks.9.conv'")
    assert again.names("g.picked") == ["blocks.9.conv"]


@pytest.mark.parametrize(
    "address", ["#nothing/there", "#convolutions/nowhere", "#%", "#convolutions/%E0%A4%A"]
)
def test_an_address_that_leads_nowhere_does_no_harm(address: str, report: Report, open_page: Open) -> None:
    page = open_page(report, row=address)
    assert page.problems() == []
    assert len(page.rows()) == 18


def chain(number: int) -> Report:
    """As many convolutions in one module, each with its norm, as the library would describe them."""
    paths = [f"body.{place}" for place in range(2 * number)]
    parts = [Part("input", "input", "", ""), *(
        Part("norm", "BatchNorm2d", path, "body") if place % 2 else Part("convolution", "Conv2d", path, "body")
        for place, path in enumerate(paths)
    ), Part("output", "output", "", "")]  # fmt: skip
    rows = tuple(
        ConvolutionEntry(conv, "Conv2d", f"{conv}.weight", (2, 2, 1, 1), 2, False, 1, "normalized", norm, (),
                         f"normalized: output goes to BatchNorm2d {norm}", False)
        for conv, norm in zip(paths[::2], paths[1::2], strict=True)
    )  # fmt: skip
    parameters = tuple(
        ParameterEntry(
            f"{path}.weight", (2,), 2, "norm.weight", "BatchNorm2d", "second-order: scale of BatchNorm2d"
        )
        for path in paths[1::2]
    )
    view = GraphView(
        parts=tuple(parts),
        edges=tuple((place, place + 1) for place in range(len(parts) - 1)),
        routes={place: (place + 1,) for place in range(1, 2 * number, 2)},
        modules={"": "Net", "body": "Sequential"},
    )
    return Report(Plan("net.Net", "see-through", "symbolic", rows, parameters), graph_view=view)


@pytest.mark.parametrize("number", [1500, 10_000])
def test_a_module_of_thousands_of_parts_is_drawn_in_groups_that_unfold(number: int, open_page: Open) -> None:
    page = open_page(chain(number))
    assert page.problems() == []
    assert float(page.run("return document.documentElement.dataset.ready")) < 5000
    assert page.text("#note") == (
        f"body has {2 * number:,} parts in a row, too many to draw one by one: they stand in groups."
    )
    body = '[data-id="m:body"] > rect:last-of-type'
    if page.run("return modules.get('body').open") is False:
        page.click(body)
    assert 10 < page.run("return svg.querySelectorAll('.folded').length") <= 250
    page.run("document.querySelector('#table tbody tr:nth-child(250)').scrollIntoView()")
    page.click("#table tbody tr:nth-child(250) td")
    assert page.names("g.picked") == ["body.499"], "the 250th norm"
    assert page.run(IN_SIGHT, "g.picked")["inside"]
    page.click("#unfold")
    page.click("#fold")
    assert page.problems() == []


def test_more_than_can_be_drawn_is_said_and_not_tried(open_page: Open) -> None:
    page = open_page(chain(1500))
    for _ in range(4):
        page.click("#unfold")
    assert "more than can be drawn: unfold single modules" in page.text("#note")
    assert page.problems() == []


def test_rows_come_as_they_are_scrolled_to(open_page: Open) -> None:
    page = open_page(chain(1500))
    assert len(page.rows()) == 300
    page.run("document.querySelector('#table tbody tr:last-child').scrollIntoView()")
    wait_for_rows(page, 301)
    name = chain(1500).plan.parameters[1400].name
    linked = open_page(chain(1500), row=f"#parameters/{quote(name)}")
    assert linked.run("return document.querySelector('tr.picked').row.name") == name


def wait_for_rows(page: Page, number: int) -> None:
    script = (
        "const [number, done] = arguments;"
        "const there = () => document.querySelectorAll('#table tbody tr').length >= number;"
        "const look = () => (there() ? done(true) : setTimeout(look, 20)); look()"
    )
    assert page.driver.execute_async_script(script, number)


def test_a_graph_that_dagre_cannot_lay_out_is_stacked(report: Report, open_page: Open) -> None:
    page = open_page(report)
    page.run("dagre.layout = () => { throw new RangeError('Maximum call stack size exceeded'); }")
    page.click_item("blocks.3")
    assert "blocks.3.conv" in page.names("g[data-id]:not(.open)")
    assert page.problems() == []


def test_names_that_turn_the_direction_of_writing_are_shown_escaped(report: Report, open_page: Open) -> None:
    plan = report.plan
    row = replace(plan.convolutions[0], name="ste\u202em")
    page = open_page(replace(report, plan=replace(plan, convolutions=(row, *plan.convolutions[1:]))))
    assert page.rows()[0] == "ste\\u202em"
    assert "\u202e" not in page.text("#table")
