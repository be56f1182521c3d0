"""What is compared: each way of preparing a network and optimizing it, as one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgdph_fx import SGDPH, prepare, restore

__all__ = ["SYSTEMS", "System"]

MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class System:
    """A network with its optimizer.

    Args:
        model: The network to train.
        optimizer: Its optimizer.
        backward: Takes the loss; leaves in place what ``optimizer.step()`` needs.
        finish: Makes the plain network of the trained one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    backward: Callable[[Tensor], None]
    finish: Callable[[nn.Module], nn.Module]


def sgdm(net: nn.Module, example: Tensor, lr: float, weight_decay: float) -> System:
    """torch's SGD with momentum 0.9 on the network as it is."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=weight_decay)
    return System(net, optimizer, _gradients, lambda trained: trained)


def sgdm_wn(net: nn.Module, example: Tensor, lr: float, weight_decay: float) -> System:
    """torch's SGD with momentum 0.9 on the prepared network: bare convolutions weight-normalized (8).

    It tells what the gains do by themselves, without Hessian ("SGDM+WN" of Table 4).
    """
    model, groups, _ = prepare(net, example)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM, weight_decay=weight_decay)
    return System(model, optimizer, _gradients, restore)


def sgd_ph(net: nn.Module, example: Tensor, lr: float, weight_decay: float) -> System:
    """SGD-PH on the prepared network, everything else at its default: the paper's α, β, ε and τ_SO."""
    model, groups, _ = prepare(net, example)
    optimizer = SGDPH(groups, lr=lr, weight_decay=weight_decay)
    return System(model, optimizer, optimizer.backward, restore)


def _gradients(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


SYSTEMS: dict[str, Callable[[nn.Module, Tensor, float, float], System]] = {
    "sgdm": sgdm,
    "sgdm-wn": sgdm_wn,
    "sgd-ph": sgd_ph,
}
