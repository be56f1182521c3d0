"""The page as a file; how it behaves in a browser is tested in tests/browser."""

import hashlib
import json
import re
from importlib.resources import files

import torch
from torch import nn

from sgdph_fx import Report, prepare

VENDOR = files("sgdph_fx.report.page").joinpath("vendor")


def report() -> Report:
    return prepare(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), torch.zeros(1, 3, 4, 4)).report


def test_the_vendored_library_is_the_one_that_is_recorded_and_its_licence_goes_with_it() -> None:
    (recorded,) = re.findall(
        r"SHA-256 of `dagre.min.js`: `([0-9a-f]{64})`", VENDOR.joinpath("README.md").read_text()
    )
    assert hashlib.sha256(VENDOR.joinpath("dagre.min.js").read_bytes()).hexdigest() == recorded
    assert VENDOR.joinpath("dagre.LICENSE.txt").read_text() in report().to_html()


def test_the_data_is_the_plan_and_the_graph_by_numbers() -> None:
    made = report()
    (text,) = re.findall(r'<script id="data" type="application/json">(.*)</script>', made.to_html())
    data = json.loads(text)
    assert data["plan"] == json.loads(made.plan.to_json())
    assert data["graphView"]["edges"] == [[0, 1], [1, 2], [2, 3]]
    assert [part[2] for part in data["graphView"]["parts"]] == ["", "0", "1", ""]
    assert data["graphView"]["routes"] == {"1": [2, 3]}


def test_a_plan_alone_makes_a_page_without_the_graph_and_its_library() -> None:
    page = Report(report().plan).to_html()
    assert "@license" not in page
    assert "Permission is hereby granted" not in page
    assert '"graphView":null' in page


def test_a_notebook_keeps_little_of_a_large_model_and_says_where_the_rest_is() -> None:
    large = prepare(nn.Sequential(*(nn.Linear(2, 2) for _ in range(200)))).report
    shown = large._repr_html_()
    # 200 biases of the one order, 200 weights of the other, 50 of each shown; a line for each before them.
    assert shown.count("<tr>") == 2 * (1 + 50) + (1 + 2)
    assert shown.count("150 more: see <code>report.to_html()</code>") == 2
    assert len(shown) < 20_000
