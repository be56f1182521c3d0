"""Trainings by CapturedStep, each with something that belongs to one; and steps on a tape in the place of a GPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sgdph_fx import CapturedStep
from sgdph_fx.optim import SGDPH

__all__ = [
    "KINDS",
    "LOOPS",
    "Noisy",
    "OnTape",
    "Tempered",
    "made",
    "noisy_groups",
    "pieces",
    "plainly",
    "plainly_written",
    "run",
    "state_of",
    "with_clipping_and_ema",
]


class OnTape(CapturedStep):
    """As on a GPU, with operations of the CPU in the place of kernels."""

    def _uses_graphs(self) -> bool:
        return True


def plainly_written(net: nn.Module, loss_fn: Any, optimizer: SGDPH) -> Callable[[Any, Any], Tensor]:
    """The steps that CapturedStep stands for, as a loop has them."""

    def step(x: Any, y: Any) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = loss_fn(net(x), y)
        optimizer.backward(loss)
        optimizer.step()
        return loss.detach()

    return step


KINDS: tuple[type[CapturedStep], ...] = (CapturedStep, OnTape)


class Noisy(nn.Module):
    """Batch norm with running statistics, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.2)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.tanh(self.norm(self.conv(x))))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


class Tempered(nn.Module):
    """A loss with a parameter of its own, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.heat = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        self.seen.add_(out.detach().mean(0))
        return cross_entropy(out * self.heat, y)


def noisy_groups(net: nn.Module) -> list[dict[str, Any]]:
    rows = list(enumerate(net.parameters()))
    return [
        {"params": [p for i, p in rows if (p.dim() == 1) == (order == 2)], "order": order}
        | {"index": [i for i, p in rows if (p.dim() == 1) == (order == 2)]}
        for order in (2, 1)
    ]


def made(kind: Any, loss_fn: Any = cross_entropy, net: Any = None, **how: Any) -> Any:
    """A network, its optimizer, and their step of that kind."""
    net = Noisy() if net is None else net
    optimizer = SGDPH(noisy_groups(net), 0.05)
    torch.manual_seed(1)
    return net, optimizer, kind(net, loss_fn, optimizer, **how)


def state_of(net: nn.Module, optimizer: SGDPH) -> list[Tensor]:
    owners = [optimizer.state[p] for p in net.parameters() if p in optimizer.state]
    averages = [own[k] for own in owners for k in sorted(own) if isinstance(own[k], Tensor)]
    return [*(p.detach() for p in net.parameters()), *net.buffers(), *averages]


def run(
    kind: type[CapturedStep], loop: Callable[[Any, SGDPH, type[CapturedStep]], Any], **options: Any
) -> Any:
    net = Noisy()
    optimizer = SGDPH(noisy_groups(net), 0.05, **options)
    torch.manual_seed(1)
    extra = loop(net, optimizer, kind)
    return [*state_of(net, optimizer), *(extra or [])]


def pieces(count: int, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(size, 2, 5, 5, generator=generator), torch.randint(3, (size,), generator=generator))
        for _ in range(count)
    ]


def plainly(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> None:
    step = kind(net, cross_entropy, optimizer)
    for x, y in pieces(20):
        step(x, y)


def with_scheduler(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> None:
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=22, cycle_momentum=False)
    step = kind(net, cross_entropy, optimizer)
    for x, y in pieces(20):
        step(x, y)
        scheduler.step()
    assert not isinstance(step, OnTape) or step.graphs == 4


def with_clipping_and_ema(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> list[Tensor]:
    step = kind(
        net,
        cross_entropy,
        optimizer,
        before_step=lambda: nn.utils.clip_grad_norm_(net.parameters(), 0.05),
    )
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for x, y in pieces(20):
        step(x, y)
        averaged.update_parameters(net)
    return list(averaged.parameters())


def with_zero_grad_wherever_people_write_it(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> None:
    step = kind(net, cross_entropy, optimizer)
    for number, (x, y) in enumerate(pieces(20)):
        optimizer.zero_grad(set_to_none=number % 2 == 0)
        step(x, y)
        net.zero_grad()


def with_a_last_batch_of_another_size(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> None:
    step = kind(net, cross_entropy, optimizer)
    for number, (x, y) in enumerate(pieces(24)):
        rows = 5 if number % 6 == 5 else 8
        step(x[:rows], y[:rows])


def under_autocast(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> None:
    step = kind(net, cross_entropy, optimizer, autocast=torch.bfloat16)
    for x, y in pieces(20):
        step(x, y)


def under_a_scaler(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> list[Tensor]:
    scaler = GradScaler("cpu", init_scale=2.0**8, growth_interval=4)
    step = kind(net, cross_entropy, optimizer, scaler=scaler)
    for number, (x, y) in enumerate(pieces(20)):
        step(x * float("inf") if number in (3, 13) else x, y)
    # Twice halved; it grows after four good steps in a row, as torch's own does.
    return [torch.tensor(scaler.get_scale()), torch.tensor(optimizer.steps_skipped)]


def with_evaluation_in_between(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> list[Tensor]:
    step = kind(net, cross_entropy, optimizer)
    scores = []
    for number, (x, y) in enumerate(pieces(20)):
        step(x, y)
        if number % 7 == 6:
            net.eval()
            with torch.no_grad():
                scores.append(net(x))
            net.train()
    return scores


def with_options_changed_on_the_way(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> None:
    step = kind(net, cross_entropy, optimizer)
    for number, (x, y) in enumerate(pieces(30)):
        if number == 12:
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.1
        if number == 15:
            net.conv.weight.requires_grad_(False)
        if number == 22:
            net.norm.eval()
        step(x, y)


def with_bad_batches(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> list[Tensor]:
    step = kind(net, cross_entropy, optimizer)
    for number, (x, y) in enumerate(pieces(20)):
        step(x * float("nan") if number in (2, 9, 14) else x, y)
        if number in (2, 9, 14):  # the statistics of batch norm are the model's own affair
            net.norm.reset_running_stats()
    return [torch.tensor([optimizer.steps_skipped, optimizer.refreshes_skipped])]


def with_structures(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> None:
    step = kind(net, lambda out, targets: cross_entropy(out, targets["labels"][0]), optimizer)
    for number, (x, y) in enumerate(pieces(20)):
        step({"x": x} if number % 2 else (x,), {"labels": [y], "epoch": number // 10})


LOOPS = (
    plainly,
    with_scheduler,
    with_clipping_and_ema,
    with_zero_grad_wherever_people_write_it,
    with_a_last_batch_of_another_size,
    under_autocast,
    under_a_scaler,
    with_evaluation_in_between,
    with_options_changed_on_the_way,
    with_bad_batches,
    with_structures,
)
