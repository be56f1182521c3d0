"""TorchScript inside a model: what it hides is said, and where; all else is read as ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import analyze, prepare
from sgdph_fx.errors import TraceError
from tests.zoo.case import single_threaded

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
IMAGES = torch.rand(2, 3, 10, 10)


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with single_threaded():
        yield


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(3, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.kernel, groups=3)


class Hides(nn.Module):
    """A convolution, TorchScript, a convolution, a norm."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 3, 1)
        self.inner = inner
        self.after = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.after(self.inner(self.before(x))))


def block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3))


SCRIPTED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "scripted": (lambda: torch.jit.script(block()), 2),
    "traced": (lambda: torch.jit.trace(block(), IMAGES), 2),
    "deeper": (lambda: nn.Sequential(nn.Sequential(torch.jit.script(nn.Conv2d(3, 3, 3)))), 1),
    "without a convolution": (lambda: torch.jit.script(nn.BatchNorm2d(3)), 0),
    "a fixed kernel": (lambda: torch.jit.script(Blur()), 0),
}


@pytest.mark.parametrize(("inner", "count"), SCRIPTED.values(), ids=SCRIPTED)
def test_convolutions_inside_torchscript_are_counted(inner: Callable[[], nn.Module], count: int) -> None:
    model = Hides(inner())
    state = {k: v.clone() for k, v in model.state_dict().items()}
    plan = analyze(model, IMAGES)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    hints = {h.where: h.message for h in plan.hints if h.code == "unseen-convolutions"}
    place = "inner.0.0" if isinstance(model.inner, nn.Sequential) else "inner"
    assert list(hints) == ([place] if count else [])
    assert all(message.startswith(f"{count} convolution") for message in hints.values())


def test_the_rest_of_the_model_is_read_and_rewritten() -> None:
    model = Hides(torch.jit.script(block()))
    prepared, groups, report = prepare(model, IMAGES)
    rows = {row.name: row for row in report.plan.convolutions}
    assert {name: row.verdict for name, row in rows.items()} == {"before": "bare", "after": "normalized"}
    assert "to RecursiveScriptModule inner" in rows["before"].reason
    inside = [p for p in report.plan.parameters if p.name.startswith("inner.")]
    assert len(inside) == 6
    assert all(p.order == 1 and "TorchScript" in p.reason for p in inside)
    assert sum(len(g["params"]) for g in groups) == len(list(prepared.parameters()))
    prepared.train()(IMAGES).square().sum().backward()
    assert all(p.is_leaf and p.grad is not None for p in prepared.parameters())


def test_without_inputs_the_remedy_is_named() -> None:
    with pytest.raises(TraceError, match=r"inner is TorchScript.*Pass example_inputs"):
        analyze(Hides(torch.jit.script(block())))
