"""What is compared: each way of preparing a network and optimizing it, as one table.

Apollo is ``pytorch_optimizer``'s ``ApolloDQN`` (its ``APOLLO`` is another method of the same name),
AdaHessian and AdaBelief are timm's; tests hold each to its paper's algorithm written out. Both packages are
in the extra ``experiments`` and are imported only by the system that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sgdph_fx import SGDPH, prepare, restore

__all__ = ["SYSTEMS", "Make", "System"]

MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class System:
    """A network with its optimizer.

    Args:
        model: The network to train.
        optimizer: Its optimizer.
        backward: Takes the loss; leaves in place what ``optimizer.step()`` needs.
        finish: Makes the plain network of the trained one.
        generator: What the optimizer draws from, where it neither saves that nor uses torch's global one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    backward: Callable[[Tensor], None]
    finish: Callable[[nn.Module], nn.Module]
    generator: torch.Generator | None = None


class Make(Protocol):
    """Network, example inputs, learning rate τ, weight decay η, further hyper-parameters → system."""

    def __call__(
        self, net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any
    ) -> System:
        """Make it; ``net`` is trained in place unless it has to be rewritten."""


def sgdm(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> System:
    """torch's SGD with momentum 0.9 on the network as it is."""
    return _plain(torch.optim.SGD, net, lr=lr, weight_decay=weight_decay, **{"momentum": MOMENTUM, **options})


def sgdm_wn(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> System:
    """torch's SGD with momentum 0.9 on the prepared network: bare convolutions weight-normalized (8).

    It tells what the gains do by themselves, without Hessian ("SGDM+WN" of Table 4).
    """
    model, groups, _ = prepare(net, example)
    settings = {"momentum": MOMENTUM, **options}
    optimizer = torch.optim.SGD(groups, lr=lr, weight_decay=weight_decay, **settings)
    return System(model, optimizer, _gradients, restore)


def sgd_ph(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> System:
    """SGD-PH on the prepared network, everything else at its default: the paper's α, β, ε and τ_SO.

    ``options`` are those of :class:`sgdph_fx.SGDPH`: ``variant``, ``probe``, ``second_order_lr``, ...
    """
    model, groups, _ = prepare(net, example)
    optimizer = SGDPH(groups, lr=lr, weight_decay=weight_decay, **options)
    return System(model, optimizer, optimizer.backward, restore)


def adabelief(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> System:
    """AdaBelief (Zhuang et al. 2020): decoupled decay as AdamW's, no rectification, ε 1e-8."""
    from timm.optim.adabelief import AdaBelief

    settings = {"eps": 1e-8, "rectify": False, **options}
    return _plain(AdaBelief, net, lr=lr, weight_decay=weight_decay, **settings)


def apollo(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> System:
    """Apollo (Ma 2020), its Hessian rectified by max(|B|, σ) with σ = 0.01; decay is added to the gradient.

    Its authors' first release has σ = 1. Steps with (σ, τ) = (1, 1) and (0.01, 0.01) are the same, so the
    learning rate 1 that SGD-PH's paper gives is 0.01 here. Warm-up starts at lr / 100, as in that release.
    """
    from pytorch_optimizer import ApolloDQN

    return _plain(ApolloDQN, net, lr=lr, weight_decay=weight_decay, **{"init_lr": lr / 100, **options})


def adahessian(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> System:
    """AdaHessian (Yao et al. 2021): one Rademacher probe a step, averaged over each kernel, ε 1e-4."""
    from timm.optim.adahessian import Adahessian

    optimizer = Adahessian(  # type: ignore[no-untyped-call]
        net.parameters(),
        lr=lr,
        weight_decay=weight_decay,
        **{"eps": 1e-4, "avg_conv_kernel": True, **options},
    )
    # timm makes its generator anew when it first sees another device; one that fits stays.
    optimizer.generator = torch.Generator(example.device)
    backward = partial(_differentiable_gradients, parameters=list(net.parameters()))
    return System(net, optimizer, backward, lambda trained: trained, optimizer.generator)


def _plain(make: Callable[..., torch.optim.Optimizer], net: nn.Module, **settings: Any) -> System:
    return System(net, make(net.parameters(), **settings), _gradients, lambda trained: trained)


def _torchs(make: Callable[..., torch.optim.Optimizer]) -> Make:
    def system(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> System:
        return _plain(make, net, lr=lr, weight_decay=weight_decay, **options)

    return system


def _gradients(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _differentiable_gradients(loss: Tensor, parameters: Iterable[Tensor]) -> None:
    parameters = list(parameters)
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(loss, parameters, create_graph=True), strict=True
    ):
        parameter.grad = gradient


SYSTEMS: dict[str, Make] = {
    "sgdm": sgdm,
    "sgdm-wn": sgdm_wn,
    "sgd-ph": sgd_ph,
    "adam": _torchs(torch.optim.Adam),
    "adamw": _torchs(torch.optim.AdamW),
    "adabelief": adabelief,
    "adahessian": adahessian,
    "apollo": apollo,
}
