"""The report on one screen."""

import re
from dataclasses import replace
from io import StringIO

import pytest
import torch
import torchvision
from torch import nn

from sgdph_fx import Config, Report, analyze, prepare
from sgdph_fx.plan.entries import Hint
from sgdph_fx.plan.plan import Plan
from tests.report.conftest import convolution
from tests.report.test_report_formats import shown, without_escapes


class Deep(nn.Sequential):
    """Twenty stages whose convolutions all have names that no number tells apart."""

    def __init__(self) -> None:
        super().__init__()
        for stage in "abcdefghijklmnopqrst":
            self.add_module(
                stage, nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.Tanh())
            )


@pytest.mark.parametrize("name", ["resnet152", "swin_b", "densenet201", "efficientnet_b7", "googlenet"])
def test_a_large_model_fits_on_a_screen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):  # without weights, which would take longer to draw than all else here
        model = torchvision.models.get_model(
            name, weights=None, **({"init_weights": False} if name == "googlenet" else {})
        )
    report = Report(analyze(model))
    for width, height in ((80, 30), (120, 45)):
        lines = without_escapes(shown(report, width, monkeypatch, full=False, height=height)).splitlines()
        # The last line is for the shell's prompt.
        assert len(lines) < height
        assert max(map(len, lines)) <= width
        counts = [int(number) for number in re.findall(r" ×(\d+) +(?:bare|normalized|-) ", "\n".join(lines))]
        assert sum(counts) == len(report.plan.convolutions)


def test_what_is_unusual_comes_first_and_what_has_no_room_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"t.0": "decouple", "t.2": "keep"}
    report = prepare(Deep(), config=Config(rules=rules)).report
    text = without_escapes(shown(report, 100, monkeypatch, full=False, height=30))
    table = text.partition("Convolutions (40)\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert [line.split()[:3] for line in table[:3]] == [
        ["t.0", "×1", "normalized,decoupled"],
        ["t.2", "×1", "bare,kept"],
        ["a.2", "×1", "bare"],
    ]
    shown_rows = len(table) - 1
    assert table[-1].split() == ["…", f"×{40 - shown_rows}", "-", f"{40 - shown_rows}", "lines", "more"]


def test_roles_are_counted_with_their_numbers(plan: Plan) -> None:
    stream = StringIO()
    Report(plan).show(stream)
    rows = [line.split() for line in stream.getvalue().splitlines()]
    assert ["direction", "×1", "first-order", "216", "Conv2d"] in rows
    assert ["gain", "×1", "second-order", "8", "Conv2d"] in rows
    assert ["frozen", "×1", "-", "-", "classifier.weight"] in rows
    assert ["other", "×1", "first-order", "1", "a", "scalar", "of", "no", "channel"] in rows


def test_equal_hints_are_one_line_with_their_places(plan: Plan) -> None:
    hints = tuple(Hint("absorbed-bias", f"layers.{n}", f"layers.{n}.bn absorbs it") for n in range(12))
    stream = StringIO()
    Report(replace(plan, hints=hints)).show(stream)
    assert re.search(
        r"^absorbed-bias +×12 +layers.0, layers.1, layers.2 and 9 more: layers.0.bn absorbs it$",
        stream.getvalue(),
        re.MULTILINE,
    )


def test_a_convolution_whose_reason_differs_has_a_line_of_its_own(plan: Plan) -> None:
    rows = tuple(
        convolution(
            f"blocks.{n}.conv", decouple=True, reason=f"bare: goes to blocks.{n}.{'act' if n else 'add'}"
        )
        for n in range(4)
    )
    stream = StringIO()
    Report(replace(plan, convolutions=rows)).show(stream)
    table = stream.getvalue().partition("Convolutions (4)\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert [line.split() for line in table] == [
        ["blocks.0.conv", "×1", "bare", "goes", "to", "blocks.0.add"],
        ["blocks.{1..3}.conv", "×3", "bare", "goes", "to", "blocks.{1..3}.act"],
    ]


def test_a_report_says_where_to_read_on_and_is_short_by_itself(plan: Plan) -> None:
    assert "report.show(full=True)" in str(Report(plan))
    assert repr(Report(plan)).startswith("<Report net.Net: 1 of 2 convolutions was decoupled")
    assert len(repr(prepare(Deep()).report)) < 200
