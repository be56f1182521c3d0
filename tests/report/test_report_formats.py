import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from sgdph_fx.plan.plan import Plan
from sgdph_fx.report import Check, Report

ESCAPE = "\x1b["


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Cells(HTMLParser):
    """The text of every table cell, as a browser would show it."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


def shown(
    report: Report,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    no_color: bool = False,
    full: bool = True,
    height: int = 24,
) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    report.show(stream, full=full)
    return stream.getvalue()


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_pipe_gets_one_whole_line_for_each_row(plan: Plan) -> None:
    stream = StringIO()
    Report(plan).show(stream, full=True)
    text = stream.getvalue()
    assert ESCAPE not in text
    lines = text.splitlines()
    (head,) = (" ".join(line.split()) for line in lines if line.startswith("blocks.head "))
    assert head == "blocks.head Conv2d bare decoupled - ReLU | Linear [bold] follow, no <norm> (net.py:12)"
    for name in (p.name for p in plan.parameters):
        assert len([line for line in lines if line.split()[:1] == [name]]) == 1


def test_str_is_the_piped_form_where_standard_output_is_no_terminal(plan: Plan) -> None:
    stream = StringIO()
    Report(plan).show(stream)
    assert f"{Report(plan)}\n" == stream.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(
    plan: Plan, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = without_escapes(shown(Report(plan), width, monkeypatch))
    assert max(map(len, text.splitlines())) <= width
    letters = re.sub(r"\s", "", text)
    words = [w for c in plan.convolutions for w in (c.name, c.kind, c.verdict)]
    words += [w for p in plan.parameters for w in (p.name, p.role, p.module)]
    words += [*plan.frozen, "absorbed-bias", "[bold]", "<norm>"]
    assert [word for word in words if word not in letters] == []


def test_a_wide_terminal_gets_tables_and_a_narrow_one_paragraphs(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide, narrow = (without_escapes(shown(Report(plan), width, monkeypatch)) for width in (160, 40))
    assert re.search(r"^name +kind +verdict +treatment +norm +reason", wide, re.MULTILINE)
    assert re.search(r"^stem\n  Conv2d normalized kept norm1", narrow, re.MULTILINE)


def test_a_terminal_gets_colour_unless_no_color_is_set(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ESCAPE in shown(Report(plan), 100, monkeypatch)
    assert ESCAPE not in shown(Report(plan), 100, monkeypatch, no_color=True)


def test_rich_lays_the_report_out_in_the_width_of_its_console(plan: Plan) -> None:
    stream = StringIO()
    Console(file=stream, width=50).print(Report(plan))
    assert max(map(len, stream.getvalue().splitlines())) <= 50
    assert "blocks.head" in stream.getvalue()


def test_json_holds_the_plan_as_it_is_saved_and_the_counts(plan: Plan) -> None:
    data = json.loads(Report(plan, Check("outputs", 2e-7)).to_json())
    assert data["version"] == 1
    assert Plan.from_json(json.dumps(data["plan"])) == plan
    assert data["check"] == {"what": "outputs", "max_relative_difference": 2e-7}
    # By hand: 2 weights of 8*3*3*3 = 216, a gain and a norm weight of 8, a scalar.
    assert data["summary"]["numbers"] == 2 * 216 + 2 * 8 + 1
    assert data["summary"]["second_order_numbers"] == 16
    assert data["summary"]["second_order_share"] == pytest.approx(16 / 449)


def test_markdown_tables_keep_their_columns_whatever_the_cells_hold(plan: Plan) -> None:
    lines = Report(plan).to_markdown().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    unescaped = [re.sub(r"\\.", "", line).count("|") - 1 for line in tables]
    # Convolutions: 6 columns, 2 rows; parameters: 6, 2 and 3; hints: 3, 1, and what they mean: 2, 1; frozen: 1, 1.
    # Each has 2 lines of head.
    assert unescaped == [6] * 4 + [6] * 4 + [6] * 5 + [3] * 3 + [2] * 3 + [1] * 3
    assert any(r"\[bold\] follow, no \<norm\>" in line for line in tables)


def test_a_notebook_shows_every_cell_and_runs_none_of_it(plan: Plan) -> None:
    parser = Cells()
    parser.feed(Report(plan)._repr_html_())
    assert "ReLU | Linear [bold] follow, no <norm> (net.py:12)" in parser.cells
    assert "norm" not in parser.tags
    # Folded: 2 convolutions, 5 roles and what is frozen, a hint. Row by row: as in Markdown.
    assert len(parser.cells) == (2 * 4 + 6 * 5 + 3) + (2 * 6 + 5 * 6 + 3 + 2 + 1)


def test_a_report_cannot_be_changed(plan: Plan) -> None:
    with pytest.raises(AttributeError):
        Report(plan).plan = plan  # type: ignore[misc]


def test_empty_tables_are_left_out(plan: Plan) -> None:
    text = str(Report(replace(plan, hints=(), frozen=())))
    assert "Hints" not in text
    assert "Frozen" not in text
