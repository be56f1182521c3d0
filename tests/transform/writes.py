"""Ways in which people write into a convolution's weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import vector_to_parameters

__all__ = ["WRITES", "no_grad"]


def no_grad(change: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    return torch.no_grad()(change)


def index(m: nn.Module) -> None:
    m.weight[0] = 0.5


def index_of_a_view(m: nn.Module) -> None:
    m.weight.flatten(1)[:, 1:3] *= 2


def norm_cap(m: nn.Module) -> None:
    m.weight.mul_((0.1 / m.weight.flatten(1).norm(dim=1).clamp_min(0.1)).view(-1, 1, 1, 1))


def two_at_once(m: nn.Module) -> None:
    """Both names stand for one weight, so the second sees what the first did."""
    first, second = m.weight, m.weight
    first.mul_(2)
    second.add_(1)
    first.mul_(3)


def in_place_operators(m: nn.Module) -> None:
    weight = m.weight
    weight *= 2
    weight += 1
    weight -= 0.5
    weight /= 3


def from_a_vector(m: nn.Module) -> None:
    vector_to_parameters(torch.arange(m.weight.numel()).double() - 9, [m.weight])


WRITES: dict[str, Callable[[nn.Module], Any]] = {
    "nn.init.normal_": lambda m: nn.init.normal_(m.weight),
    "nn.init.kaiming_uniform_": lambda m: nn.init.kaiming_uniform_(m.weight, a=2),
    "nn.init.xavier_normal_": lambda m: nn.init.xavier_normal_(m.weight),
    "nn.init.trunc_normal_": lambda m: nn.init.trunc_normal_(m.weight),
    "nn.init.orthogonal_": lambda m: nn.init.orthogonal_(m.weight),
    "nn.init.dirac_": lambda m: nn.init.dirac_(m.weight),
    "nn.init.zeros_": lambda m: nn.init.zeros_(m.weight),
    "nn.init of .data": lambda m: nn.init.normal_(m.weight.data),
    "reset_parameters": lambda m: m.reset_parameters(),
    "apply": lambda m: m.apply(lambda inner: nn.init.uniform_(inner.weight)),
    ".data.normal_": lambda m: m.weight.data.normal_(0, 0.02),
    ".data.clamp_": lambda m: m.weight.data.clamp_(-0.1, 0.1),
    ".data.mul_": lambda m: m.weight.data.mul_(-2),
    ".data.copy_": lambda m: m.weight.data.copy_(torch.ones(1)),
    ".data[...] =": lambda m: m.weight.data.__setitem__((slice(None), 0), 0.3),
    ".data =": lambda m: setattr(m.weight, "data", m.weight.data * 3),
    ".data = renorm": lambda m: setattr(m.weight, "data", torch.renorm(m.weight.data, 2, 0, 0.1)),
    ".detach().mul_": lambda m: m.weight.detach().mul_(2),
    "set_": no_grad(lambda m: m.weight.set_(torch.ones_like(m.weight) / 3)),
    "copy_": no_grad(lambda m: m.weight.copy_(torch.ones_like(m.weight))),
    "clamp_": no_grad(lambda m: m.weight.clamp_(-0.05, 0.05)),
    "torch.clamp_": no_grad(lambda m: torch.clamp_(m.weight, -0.05, 0.05)),
    "renorm_": no_grad(lambda m: m.weight.renorm_(2, 0, 0.1)),
    "masked_fill_": no_grad(lambda m: m.weight.masked_fill_(m.weight > 0, 1)),
    "out=": no_grad(lambda m: torch.mul(m.weight, 2, out=m.weight)),
    "_foreach": no_grad(lambda m: torch._foreach_mul_([m.weight], 2)),
    "index": no_grad(index),
    "index of a view": no_grad(index_of_a_view),
    "unbind": no_grad(lambda m: m.weight.unbind(0)[1].zero_()),
    "operators": no_grad(in_place_operators),
    "norm cap": no_grad(norm_cap),
    "two at once": no_grad(two_at_once),
    "assignment": lambda m: setattr(m, "weight", nn.Parameter(torch.ones_like(m.weight))),
    "vector_to_parameters": no_grad(
        lambda m: vector_to_parameters(torch.arange(m.weight.numel()).double() - 9, [m.weight])
    ),
    "lerp to another": no_grad(lambda m: m.weight.lerp_(torch.ones_like(m.weight), 0.25)),
}
