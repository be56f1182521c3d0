"""A slice of the coverage table: a dozen small models, whole; and the table's own machinery."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.coverage.compare import convolution_calls, distance, overlooked
from benchmarks.coverage.measure import rows_of
from benchmarks.coverage.render import page
from benchmarks.coverage.row import Log, Oracle, Reading, Row
from benchmarks.coverage.sample import Sample, noise
from benchmarks.coverage.state import watched
from benchmarks.coverage.subprocesses import Limits, measured
from benchmarks.coverage.zoos import from_timm, from_torchvision, zoo
from sgdph_fx import analyze
from tests.zoo.case import single_threaded

_SLICE = (
    ("torchvision", "mnasnet0_5"),
    ("torchvision", "mobilenet_v3_small"),
    ("torchvision", "shufflenet_v2_x0_5"),
    ("torchvision", "squeezenet1_1"),
    ("torchvision", "fasterrcnn_mobilenet_v3_large_320_fpn"),
    ("timm", "test_resnet"),
    ("timm", "test_byobnet"),
    ("timm", "test_convnext"),
    ("timm", "test_efficientnet_ln"),
    ("timm", "test_mambaout"),
    ("timm", "test_vit"),
)


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with single_threaded():
        yield


@pytest.mark.parametrize(("name", "model"), _SLICE, ids=[f"{name}-{model}" for name, model in _SLICE])
def test_a_model_of_a_zoo_is_covered(name: str, model: str) -> None:
    _is_covered(*rows_of(name, model, partial(zoo(name).sample, model), oracle=1))


def test_a_small_maxvit_of_timm_is_covered() -> None:
    """In the size of timm's own `test_maxvit`, which the lowest timm does not have yet."""
    size = {"depths": (1, 1, 1, 1), "stem_width": (16, 32), "embed_dim": (32, 64, 96, 128)}

    def build(batch: int) -> Sample:
        return Sample(
            timm.create_model("maxvit_pico_rw_256", img_size=160, **size), (noise(batch, 3, 160, 160),)
        )

    _is_covered(*rows_of("timm", "maxvit", build, oracle=1))


def _is_covered(*rows: Row) -> None:
    row = rows[-1]
    assert row.problems == ()
    assert row.recorded is not None
    assert row.equal
    assert not row.silent
    assert row.groups == ()
    assert row.convolutions_run
    assert row.oracle is not None
    assert row.oracle.asked == 1


def test_the_zoos_hold_what_they_should() -> None:
    assert not any(name.startswith("quantized") for name in from_torchvision.names())
    assert len(from_torchvision.names()) >= 100
    assert len(set(from_timm.names())) >= 150


class _Hidden(nn.Module):
    """A convolution that a scripted submodule hides from Python, before one that is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.jit.script(nn.Conv2d(3, 3, 3))
        self.outer = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(self.inner(x))
        return out


def test_a_hidden_convolution_is_counted() -> None:
    assert convolution_calls(_Hidden(), Sample(nn.Identity(), (noise(1, 3, 8, 8),))) == (2, 1)


class _Blurred(nn.Module):
    """A convolution after a fixed kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3))
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(F.conv2d(x, self.kernel.expand(3, -1, -1, -1), groups=3))
        return out


def test_a_fixed_kernel_is_not_counted() -> None:
    assert convolution_calls(_Blurred(), Sample(nn.Identity(), (noise(1, 3, 8, 8),))) == (1, 1)


@torch.jit.script
def _in_secret(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * weight.mean()


class _Uncalled(nn.Module):
    """Two convolutions that are never called as modules; a scripted function uses the weight of one."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _in_secret(x, self.used.weight)
        return out


def test_a_convolution_that_is_used_unseen_is_found() -> None:
    model, sample = _Uncalled(), Sample(nn.Identity(), (noise(1, 3, 8, 8),))
    assert list(overlooked(analyze(model, sample), model, sample)) == ["used"]


def test_a_run_that_leaves_something_changed_is_found() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    with watched(model) as nothing:
        model[1](torch.ones(3, 2))
    with watched(model) as changes:
        model(torch.ones(3, 2))
        torch.rand(1)
    assert nothing == []
    assert {"0.running_mean", "torch.random"} <= set(changes)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([1.0, -2.0], 0.0),
        ([1.0, -2.5], 0.25),
        ([1.0, float("nan")], float("inf")),
        ([1.0], float("inf")),
    ],
)
def test_distance(after: list[float], expected: float) -> None:
    assert distance([torch.tensor(after)], [torch.tensor([1.0, -2.0])]) == expected


def test_a_process_that_takes_too_long_is_a_row() -> None:
    row = measured("torchvision", "vgg11", Limits(seconds=0.01, gigabytes=12))
    assert row.failed == "process"
    assert "not done in 0 s" in str(row.reason)


def test_a_model_that_needs_too_much_memory_is_a_row() -> None:
    row = measured("torchvision", "vgg11", Limits(seconds=100, gigabytes=0.3))
    assert row.failed
    assert row.reason


_GOOD = Row(
    "timm",
    "good",
    recorded=Reading(0.3, 1, 2, 3),
    symbolic=Reading(0.06, 1, 2, 3),
    forward_seconds=0.2,
    fx_seconds=0.03,
    differences=(),
    prepared=0.0,
    restored=0.0,
    state=(),
    groups=(),
    convolutions_run=3,
    convolutions_seen=3,
    oracle=Oracle(3, cautious=("conv: no norm",)),
)
_BAD = Row("torchvision", "bad", failed="build", reason="RuntimeError: a | b")


def test_log_gives_back_what_it_was_given(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    assert log.rows() == {}
    log.append(_BAD)
    with log.file.open("a") as stream:
        stream.write('{"zoo": "timm", "model": "ha')  # killed in mid-line
    log.append(_GOOD)
    assert log.rows() == {("torchvision", "bad"): _BAD, ("timm", "good"): _GOOD}


def test_page_puts_failures_first() -> None:
    text = page([_GOOD, _BAD])
    assert "- **torchvision: bad**: build: RuntimeError: a \\| b" in text
    table = text[text.index("## Every model") :]
    assert table.index("torchvision: bad") < table.index("timm: good")
    assert "| analyze ÷ fx, median | 2.00 | – | 2.00 |" in text
    assert "| analyze ÷ forward, median | 1.50 | – | 1.50 |" in text
    assert "- timm: good, cautious, conv: no norm" in text
