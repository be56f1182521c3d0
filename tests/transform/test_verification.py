"""What is compared before and after a rewriting: every tensor of the outputs, whatever they are packed in."""

from __future__ import annotations

from collections import deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import prepare
from sgdph_fx.errors import RewriteError
from sgdph_fx.trace import tensors_in
from tests.trace.states import state_of

X = torch.rand(2, 3, 8, 8)
Two = namedtuple("Two", "first second")


@dataclass
class Data:
    y: Tensor
    note: str = "none"


class Slots:
    __slots__ = ("y",)

    def __init__(self, y: Tensor) -> None:
        self.y = y


PACKAGES: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda y: y,
    "list": lambda y: [1, [y]],
    "named tuple": lambda y: Two(y, None),
    "mapping": lambda y: {"a": {"b": y}},
    "data class": Data,
    "slots": Slots,
    "namespace": lambda y: SimpleNamespace(inner=SimpleNamespace(y=y)),
    "distribution": lambda y: torch.distributions.Normal(y, 1.0),
    "wrapped distribution": lambda y: torch.distributions.Independent(torch.distributions.Normal(y, 1.0), 1),
    "complex": torch.fft.fft2,
    "conjugate": lambda y: torch.fft.fft2(y).conj(),
    "integers": lambda y: (1000 * y).long(),
    "booleans": lambda y: (1000 * y).long() % 2 == 0,
    "sparse": lambda y: y.to_sparse(),
    "half": lambda y: y.half(),
    "float8": lambda y: y.to(torch.float8_e4m3fn),
    "quantized": lambda y: torch.quantize_per_tensor(y, 0.01, 0, torch.quint8),
    "nested": lambda y: torch.nested.nested_tensor([y[0], y[1, :1]]),
    "queue": lambda y: deque([y], maxlen=3),
    "values of a mapping": lambda y: {"a": y}.values(),
    "NumPy": lambda y: y.detach().numpy(),
    "NumPy's objects": lambda y: np.array([None, {"y": y.detach().numpy()}], dtype=object),
    "masked": lambda y: torch.masked.masked_tensor(y.detach(), y > 0),
}


class Doubling(nn.Conv2d):
    """Sees that it was rewritten, and computes something else then."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * (1 + hasattr(self, "gain")), self.bias)


class Packing(nn.Module):
    def __init__(self, conv: type[nn.Conv2d], pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.pack = conv(3, 4, 3), pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.conv(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pack", PACKAGES.values(), ids=PACKAGES)
def test_a_difference_is_seen_wherever_it_is(pack: Callable[[Tensor], Any]) -> None:
    model = Packing(Doubling, pack)
    before = state_of(model)
    with pytest.raises(RewriteError, match=r"output.* differs by .*The model is as it was"):
        prepare(model, X, inplace=True)
    assert state_of(model) == before
    check = prepare(Packing(nn.Conv2d, pack), X).report.check
    assert check is not None
    assert check.what == "outputs in evaluation mode"
    assert check.max_relative_difference == 0


NOTHING = [
    lambda y: None,
    lambda y: y.sum().item(),
    lambda y: [],
    lambda y: "text",
    lambda y: y[:0],
    lambda y: np.array(["text"]),
]


@pytest.mark.parametrize("pack", NOTHING)
def test_nothing_to_compare_is_said(pack: Callable[[Tensor], Any]) -> None:
    report = prepare(Packing(nn.Conv2d, pack), X).report
    assert report.check is not None
    assert report.check.what.endswith("; the outputs hold nothing to compare")
    assert "nothing to compare" in report.headline


def test_without_numbers_nothing_is_claimed() -> None:
    report = prepare(nn.Sequential(nn.Conv2d(3, 4, 1, device="meta"), nn.ReLU())).report
    assert report.check is None
    assert "Not checked against the original." in report.headline


class OfAnotherShape(Doubling):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y[:1] if hasattr(self, "gain") else y


class Failing(Doubling):
    def forward(self, x: Tensor) -> Tensor:
        weight = self._parameters.get("weight")
        assert weight is not None, "where is it?"
        return F.conv2d(x, weight)


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (OfAnotherShape, r"returns other outputs: output\. .*The model is as it was"),
        (
            Failing,
            r"does not run: AssertionError at transform/test_verification\.py:\d+: `assert .*where is it",
        ),
    ],
)
def test_other_outputs_and_none(conv: type[nn.Conv2d], message: str) -> None:
    model = Packing(conv, lambda y: y)
    before = state_of(model)
    with pytest.raises(RewriteError, match=message):
        prepare(model, X, inplace=True)
    assert state_of(model) == before


def test_infinite_places_have_to_be_the_same() -> None:
    class Infinite(Doubling):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return torch.where(y > y.mean(), torch.inf, 0 * y) if hasattr(self, "gain") else 0 * y

    with pytest.raises(RewriteError, match="differs by inf"):
        prepare(Packing(Infinite, lambda y: y), X)
    check = prepare(Packing(nn.Conv2d, lambda y: torch.where(y > 0, torch.nan, y / 0)), X).report.check
    assert check is not None
    assert (check.what, check.max_relative_difference) == ("outputs in evaluation mode", 0)


def test_whole_numbers_have_to_be_equal() -> None:
    """One of ten thousand would be rounding in single precision."""

    class Counting(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), torch.tensor(10_000 + hasattr(self, "gain"))

    with pytest.raises(RewriteError, match=r"output\[1\] differs by 1\.0e-04"):
        prepare(Packing(Counting, lambda y: y), X)


@pytest.mark.parametrize(("off", "refused"), [(1e-4, False), (1e-3, True)])
def test_the_largest_difference_counts_and_half_of_the_digits_have_to_be_right(
    off: float, refused: bool
) -> None:
    """Single precision rounds at 1.2e-7, whose root is 3.5e-4."""

    class Off(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            y = super().forward(x)
            return y * (1 + off * hasattr(self, "gain")), y

    model = Packing(Off, lambda y: y)
    if refused:
        with pytest.raises(RewriteError, match=r"output\[0\] differs by 1\.0e-03"):
            prepare(model, X)
        return
    check = prepare(model, X).report.check
    assert check is not None
    assert check.max_relative_difference == pytest.approx(1e-4, rel=1e-2)


def test_a_tensor_is_found_once_and_rings_end() -> None:
    y, ring = torch.zeros(1), []
    ring.extend([y, ring, {"again": y}])
    assert list(tensors_in(ring)) == ["[0]"]
    assert tensors_in(nn.Linear(2, 2)) == {}  # what it holds is no output


class ReadsTheParameter(nn.Module):
    """Finds its convolution's weight by another way than ``module.weight``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * next(self.conv.parameters()).mean()


def test_rewrite_that_would_change_the_function_is_undone() -> None:
    model, x = ReadsTheParameter(), torch.rand(1, 3, 5, 5)
    with torch.no_grad():
        model.conv.weight[0].zero_()  # whose direction is made up, so this model computes something else
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RewriteError, match="The model is as it was"):
        prepare(model, x, inplace=True)
    assert type(model.conv) is nn.Conv2d
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Drawing(nn.Module):
    """Its second output is another one in each run, whatever the state of the random number generators."""

    def __init__(self, conv: type[nn.Conv2d]) -> None:
        super().__init__()
        self.conv = conv(3, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x), torch.tensor(np.random.default_rng().random())


def test_what_differs_from_run_to_run_is_left_out_of_the_comparison() -> None:
    check = prepare(Drawing(nn.Conv2d), X).report.check
    assert check is not None
    assert (check.what, check.max_relative_difference) == ("outputs in evaluation mode", 0)
    with pytest.raises(RewriteError, match=r"output\[0\] differs"):
        prepare(Drawing(Doubling), X)


def test_inputs_that_are_drawn_anew_leave_nothing_to_compare() -> None:
    batches = iter([torch.rand(2, 3, 8, 8) for _ in range(9)])
    report = prepare(Packing(nn.Conv2d, lambda y: y), lambda model: model(next(batches))).report
    assert report.check is not None
    assert report.check.what.endswith("; the outputs differ from run to run, so they could not be compared")


def test_a_model_without_numbers_is_prepared_and_runs_on_inputs_without_numbers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, device="meta"), nn.ReLU())
    prepared = prepare(model, torch.randn(2, 3, 6, 6, device="meta")).model
    assert prepared(torch.randn(5, 3, 8, 8, device="meta")).shape == (5, 4, 6, 6)
