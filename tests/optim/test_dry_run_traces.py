"""The dry run leaves no trace: what a loss function or a layer writes, keeps and draws is there once for each step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import CapturedStep
from tests.optim.captured_loops import Noisy, made, pieces, plainly_written

STEPS = 5


def adds_to_a_tensor(kept: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    total = kept["total"] = torch.zeros(())

    def loss_fn(out: Tensor, y: Tensor) -> Tensor:
        loss = cross_entropy(out, y)
        total.add_(loss.detach())
        return loss

    return loss_fn


def counts_in_a_table(kept: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    table = kept["table"] = torch.zeros(3, 3)

    def loss_fn(out: Tensor, y: Tensor) -> Tensor:
        table.index_put_((y, out.argmax(1)), torch.ones(len(y)), accumulate=True)
        return cross_entropy(out, y)

    return loss_fn


def adds_in_a_dict(kept: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    sums = {"loss": torch.zeros(())}

    def loss_fn(out: Tensor, y: Tensor) -> Tensor:
        loss = cross_entropy(out, y)
        sums["loss"] += loss.detach()
        kept["sum"] = sums["loss"]
        return loss

    return loss_fn


def keeps_a_record(kept: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    record: list[Tensor] = []
    last: deque[Tensor] = deque(maxlen=3)
    kept["record"], kept["last"] = record, last

    def loss_fn(out: Tensor, y: Tensor) -> Tensor:
        loss = cross_entropy(out, y)
        record.append(loss.detach())
        last.append(loss.detach())
        return loss

    return loss_fn


def belongs_to_a_trainer(kept: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    class Trainer:
        def __init__(self) -> None:
            self.total, self.losses, self.log = torch.zeros(()), [torch.zeros(())], {"n": torch.zeros(())}

        def loss(self, out: Tensor, y: Tensor) -> Tensor:
            loss = cross_entropy(out, y)
            self.total += loss.detach()
            self.losses.append(loss.detach())
            self.log["n"] += 1
            return loss

    trainer = Trainer()
    kept["trainer"] = trainer.__dict__
    return trainer.loss


MAKES = (adds_to_a_tensor, counts_in_a_table, adds_in_a_dict, keeps_a_record, belongs_to_a_trainer)


@pytest.mark.parametrize("make", MAKES)
def test_what_a_loss_function_keeps_is_what_a_loop_written_out_keeps(make: Any) -> None:
    found: list[dict[str, Any]] = []
    for train in (CapturedStep, plainly_written):
        kept: dict[str, Any] = {}
        _, _, step = made(train, make(kept))
        for x, y in pieces(STEPS):
            step(x, y)
        found.append(kept)
    torch.testing.assert_close(_lists(found[0]), _lists(found[1]), rtol=1e-4, atol=1e-6)


def _lists(kept: Any) -> Any:
    if isinstance(kept, dict):
        return {key: _lists(value) for key, value in kept.items()}
    return list(kept) if isinstance(kept, deque) else kept


class OwnNoise(nn.Module):
    """Draws from a generator of its own, which a closure holds."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.net = Noisy().eval()
        self.draw = lambda x: torch.randn(x.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x + self.draw(x) / 10)
        return out


def test_a_generator_of_ones_own_is_drawn_from_once_for_each_step() -> None:
    generator, other = (torch.Generator().manual_seed(5) for _ in range(2))
    _, _, step = made(CapturedStep, net=OwnNoise(generator))
    for x, y in pieces(STEPS):
        step(x, y)
        torch.randn(x.shape, generator=other)
    assert torch.equal(generator.get_state(), other.get_state())


def test_a_batch_that_the_model_writes_into_is_written_once() -> None:
    class Doubles(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    _, _, step = made(CapturedStep, net=Doubles())
    ((x, y),) = pieces(1)
    before = x.clone()
    step(x, y)
    assert torch.equal(x, 2 * before)


def test_code_that_reads_only_outside_of_a_capture_is_run() -> None:
    """As in transformers' models, which leave a mask out if nothing is masked."""
    asked = torch.cuda.is_current_stream_capturing

    def is_captured() -> bool:
        try:
            return torch.cuda.is_current_stream_capturing()
        except RuntimeError:  # without a driver
            return False

    class Masked(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            mask = x[:, :1] < 5
            if not is_captured() and bool(mask.all()):
                return super().forward(x)
            return super().forward(x * mask)

    found = []
    for train in (CapturedStep, plainly_written):
        net, _, step = made(train, net=Masked())
        for x, y in pieces(STEPS):
            step(x, y)
        found.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert torch.cuda.is_current_stream_capturing is asked


def test_labels_may_be_spread_to_classes() -> None:
    """On a CPU torch looks at the labels, on a GPU it does not."""

    def dice(out: Tensor, y: Tensor) -> Tensor:
        shares, hits = out.softmax(1), nn.functional.one_hot(y, num_classes=3)
        return 1 - 2 * (shares * hits).sum() / (shares.sum() + nn.functional.one_hot(y, 3).sum())

    found = []
    for train in (CapturedStep, plainly_written):
        net, _, step = made(train, dice)
        for x, y in pieces(STEPS):
            step(x, y)
        found.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_a_loss_with_forward_mode_derivatives_is_run() -> None:
    """Torch's zeros of forward mode have no memory to look at."""
    net: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(50, 4), nn.LayerNorm(4), nn.Linear(4, 3))

    def loss_fn(out: Tensor, x: Tensor) -> Tensor:
        slope = torch.func.jvp(net, (x,), (torch.ones_like(x),))[1]
        return out.square().mean() + slope.square().mean()

    found = []
    for train in (CapturedStep, plainly_written):
        torch.manual_seed(0)
        for layer in net:  # type: ignore[attr-defined]
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        _, _, step = made(train, loss_fn, net=net)
        for x, _ in pieces(STEPS):
            step(x, x)
        found.append([p.detach().clone() for p in net.parameters()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
