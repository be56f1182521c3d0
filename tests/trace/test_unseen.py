"""What code reads that no torch function shows: a norm beside it does not make a convolution normalized."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import Config, analyze, prepare

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
X = torch.rand(2, 3, 6, 6)


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class Extension(torch.autograd.Function):
    """As extensions in C++ are called: what happens to the numbers, only the extension knows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.from_numpy(np.tanh(x.numpy(force=True)))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grads[0] * (1 - y * y)


def _fill_with_tanh(out: Tensor, x: Tensor) -> None:
    out.copy_(x.tanh())


LIBRARY = torch.library.Library("sgdph_fx_tests", "FRAGMENT")
LIBRARY.define("fill_with_tanh(Tensor(a!) out, Tensor x) -> ()")
LIBRARY.impl("fill_with_tanh", _fill_with_tanh, "CompositeExplicitAutograd")


def filled(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    with torch.no_grad():
        torch.ops.sgdph_fx_tests.fill_with_tanh(out, x)
    return out


def in_a_thread(x: Tensor) -> Tensor:
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(torch.tanh(x)))
    thread.start()
    thread.join()
    return results[0]


def without_functions(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return x.sigmoid()


UNSEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "TorchScript": scripted,
    "forked TorchScript": lambda x: torch.jit.wait(torch.jit.fork(scripted, x)),  # type: ignore[no-untyped-call]
    "an extension": Extension.apply,
    "an operator without a result": filled,
    "another thread": in_a_thread,
    "functions switched off": without_functions,
}


class Beside(nn.Module):
    """A convolution that a norm reads, and something else."""

    def __init__(self, other: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), other

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + self.other(y)


class Returns(Beside):
    """What is unseen is an output of its own."""

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.norm(y), self.other(y)


class Uses(Beside):
    """A parameter that only unseen code reads."""

    def __init__(self, other: Callable[[Tensor], Tensor]) -> None:
        super().__init__(other)
        self.hidden = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y * self.other(self.hidden.weight).mean()


@pytest.mark.parametrize("other", UNSEEN.values(), ids=UNSEEN)
@pytest.mark.parametrize("kind", [Beside, Returns])
def test_a_convolution_that_unseen_code_reads_is_bare(
    kind: type[Beside], other: Callable[[Tensor], Tensor]
) -> None:
    model = kind(other)
    assert _changes_with_a_gain(model)
    (row,) = analyze(model, X, config=Config("absorbing")).convolutions
    assert (row.verdict, row.decouple) == ("bare", True)
    assert "unseen_code" in row.reason or "fill_with_tanh" in row.reason


def _changes_with_a_gain(model: Beside) -> bool:
    """The numerical truth of a bare convolution, on all that the model returns."""
    before = model(X)
    with torch.no_grad():
        model.conv.weight *= 3
        assert model.conv.bias is not None
        model.conv.bias *= 3
    after = model(X)
    pairs = zip(before, after, strict=True) if isinstance(before, tuple) else [(before, after)]
    return any(not torch.allclose(one, other, atol=1e-3) for one, other in pairs)


@pytest.mark.parametrize("name", ["TorchScript", "another thread", "functions switched off"])
def test_a_weight_that_unseen_code_reads_is_not_called_unused(name: str) -> None:
    plan = analyze(Uses(UNSEEN[name]), X)
    hidden = next(row for row in plan.convolutions if row.name == "hidden")
    assert "never called" not in hidden.reason
    assert ("used-otherwise", "hidden") in {(hint.code, hint.where) for hint in plan.hints}


@torch.jit.script
def itself(x: Tensor) -> Tensor:
    return x


def test_a_result_that_comes_back_from_elsewhere_is_still_known() -> None:
    class Carried(Beside):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.norm(torch.jit.wait(torch.jit.fork(itself, self.conv(x))))  # type: ignore[no-untyped-call]
            return result

    (row,) = analyze(Carried(torch.tanh), X).convolutions
    assert row.verdict == "normalized"


def test_the_prepared_model_computes_the_same() -> None:
    model = Beside(Extension.apply)
    prepared = prepare(model, X).model
    assert torch.allclose(model(X), prepared(X), atol=1e-6)


class Held:
    """What lives as long as the graph that holds it."""


class Holds(torch.autograd.Function):
    alive: ClassVar[weakref.WeakSet[Held]] = weakref.WeakSet()

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.held = Held()
        Holds.alive.add(ctx.held)
        return x.exp()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def test_a_graph_that_nobody_needs_any_more_is_let_go() -> None:
    class Loop(Beside):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(5):
                (2 * Holds.apply(self.conv(x))).detach()
                assert len(Holds.alive) <= 1
            result: Tensor = self.norm(self.conv(x))
            return result

    (row,) = analyze(Loop(torch.tanh), X).convolutions
    assert row.verdict == "bare"  # five of its calls go nowhere else


def test_a_part_of_a_parameter_that_a_run_writes_to_without_a_graph() -> None:
    """Torch refuses to name the function that made such a part."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.count = nn.Conv2d(3, 4, 1), nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.count[0] += 1
            y: Tensor = self.conv(x)
            return y

    model = Counting()
    plan = analyze(model, torch.rand(1, 3, 4, 4))
    assert [hint.code for hint in plan.hints if hint.code == "training-run-failed"] == []
    assert model.count.tolist() == [0, 0]
