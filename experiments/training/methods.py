"""What the experiments compare: each way to prepare a network and optimize it, in one table.

Apollo is ``pytorch_optimizer``'s ``ApolloDQN`` (its ``APOLLO`` is another method of the same name). AdaHessian
and AdaBelief are timm's. Tests check each against its paper's algorithm, written out. Both packages are in the
extra ``experiments``, and only the method that needs one imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from experiments.training.mixed_optimizers import (
    CombinedOptimizer,
    MatrixMuon,
    OptimizerLike,
    split_matrices,
)
from experiments.training.muon_channelwise import (
    muon_adamw_channelwise,
    muon_channelwise,
    prepare_linears,
)
from sgdph_fx import SGDPH, prepare, restore

__all__ = ["METHODS", "MethodBuilder", "Setup"]

MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class Setup:
    """A network with its optimizer.

    Args:
        model: The network to train.
        optimizer: Its optimizer.
        backward: Takes the loss, and leaves behind what ``optimizer.step()`` needs.
        finish: Turns the trained network into the plain one.
        generator: The optimizer's random generator, if it neither saves one nor uses torch's global one.
    """

    model: nn.Module
    optimizer: OptimizerLike
    backward: Callable[[Tensor], None]
    finish: Callable[[nn.Module], nn.Module]
    generator: torch.Generator | None = None


class MethodBuilder(Protocol):
    """Network, example inputs, learning rate τ, weight decay η, further hyper-parameters → :class:`Setup`."""

    def __call__(
        self, net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any
    ) -> Setup:
        """Make it. ``net`` is trained in place unless it has to be rewritten."""


def sgdm(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
    """Use torch's SGD with momentum 0.9 on the network as it is."""
    return _plain(torch.optim.SGD, net, lr=lr, weight_decay=weight_decay, **{"momentum": MOMENTUM, **options})


def sgdm_wn(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
    """Use torch's SGD with momentum 0.9 on the prepared network, with bare convolutions weight-normalized (8).

    It shows what the gains do by themselves, without a Hessian ("SGDM+WN" of Table 4).
    """
    model, groups, _ = prepare(net, example)
    settings = {"momentum": MOMENTUM, **options}
    optimizer = torch.optim.SGD(groups, lr=lr, weight_decay=weight_decay, **settings)
    return Setup(model, optimizer, _gradients, restore)


def sgd_ph(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
    """Use SGD-PH on the prepared network. All else has its default: the paper's α, β, ε and τ_SO.

    ``options`` are those of :class:`sgdph_fx.SGDPH`: ``variant``, ``probe``, ``second_order_lr``, ...
    """
    model, groups, _ = prepare(net, example)
    optimizer = SGDPH(groups, lr=lr, weight_decay=weight_decay, **options)
    return Setup(model, optimizer, optimizer.backward, restore)


def adam_channelwise(
    net: nn.Module,
    example: Tensor,
    lr: float,
    weight_decay: float,
    *,
    channelwise_lr: float = 1e-3,
    **options: Any,
) -> Setup:
    """Use Adam's step on SGD-PH's second-order parameters, and torch's SGD with momentum 0.9 on the rest.

    It is a control for SGD-PH: the same prepared network and the same parameters, but normalized by gradients and
    without a Hessian. The decay of the channel-wise parameters is SGD-PH's, −τ η W at each step.
    """
    model, groups, _ = prepare(net, example)
    channelwise = [p for group in groups if group["order"] == 2 for p in group["params"]]
    others = [p for group in groups if group["order"] == 1 for p in group["params"]]
    decay = weight_decay * lr / channelwise_lr
    optimizer = CombinedOptimizer(
        torch.optim.SGD(others, lr=lr, weight_decay=weight_decay, momentum=MOMENTUM),
        torch.optim.AdamW(channelwise, lr=channelwise_lr, weight_decay=decay, **options),
    )
    return Setup(model, optimizer, _gradients, restore)


def muon_adamw(
    net: nn.Module,
    example: Tensor,
    lr: float,
    weight_decay: float,
    *,
    adamw_lr: float = 1e-3,
    **options: Any,
) -> Setup:
    """Use torch's Muon on the hidden layers' weights as matrices, and AdamW on the rest.

    The rest are the last linear layer, biases, norms and tables. Muon's step is scaled so that its root mean
    square is that of AdamW's (``adjust_lr_fn="match_rms_adamw"``).
    """
    matrices, others = split_matrices(net)
    optimizer = CombinedOptimizer(
        MatrixMuon(matrices, lr=lr, weight_decay=weight_decay, **options),
        torch.optim.AdamW(others, lr=adamw_lr, weight_decay=weight_decay),
    )
    return Setup(net, optimizer, _gradients, _unchanged)


def muon_ph(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
    """Use Muon on directions and matrices, SGD-PH's step on gains, biases and norms, AdamW on the rest."""
    model, optimizer = muon_channelwise(net, example, lr, weight_decay, **options)
    return Setup(model, optimizer, optimizer.backward, restore)


def muon_adamw_split(
    net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any
) -> Setup:
    """Use Muon on directions and matrices, AdamW on the rest, with a rate for the channel-wise parameters alone."""
    model, optimizer = muon_adamw_channelwise(net, example, lr, weight_decay, **options)
    return Setup(model, optimizer, _gradients, restore)


def soap(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
    """Use SOAP (Vyas et al. 2024), ``pytorch_optimizer``'s: Adam in the eigenbasis of Shampoo's preconditioner."""
    from pytorch_optimizer import SOAP

    trained = [p for p in net.parameters() if p.requires_grad]
    return Setup(net, SOAP(trained, lr=lr, weight_decay=weight_decay, **options), _gradients, _unchanged)


def adabelief(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
    """Use AdaBelief (Zhuang et al. 2020): decoupled decay as AdamW's, no rectification, ε 1e-8."""
    from timm.optim.adabelief import AdaBelief

    settings = {"eps": 1e-8, "rectify": False, **options}
    return _plain(AdaBelief, net, lr=lr, weight_decay=weight_decay, **settings)


def apollo(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
    """Use Apollo (Ma 2020). Its Hessian is rectified by max(|B|, σ) with σ = 0.01; decay is added to the gradient.

    Its authors' first release has σ = 1. Steps with (σ, τ) = (1, 1) and (0.01, 0.01) are the same, so the
    learning rate 1 that SGD-PH's paper gives is 0.01 here. Warm-up starts at lr / 100, as in that release.
    """
    from pytorch_optimizer import ApolloDQN

    return _plain(ApolloDQN, net, lr=lr, weight_decay=weight_decay, **{"init_lr": lr / 100, **options})


def adahessian(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
    """Use AdaHessian (Yao et al. 2021): one Rademacher probe a step, averaged over each kernel, ε 1e-4."""
    from timm.optim.adahessian import Adahessian

    optimizer = Adahessian(  # type: ignore[no-untyped-call]
        net.parameters(),
        lr=lr,
        weight_decay=weight_decay,
        **{"eps": 1e-4, "avg_conv_kernel": True, **options},
    )
    # timm replaces its generator when it first sees another device. One that already fits stays.
    optimizer.generator = torch.Generator(example.device)
    backward = partial(_differentiable_gradients, parameters=list(net.parameters()))
    return Setup(net, optimizer, backward, _unchanged, optimizer.generator)


def _plain(make: Callable[..., torch.optim.Optimizer], net: nn.Module, **settings: Any) -> Setup:
    trained = [p for p in net.parameters() if p.requires_grad]
    return Setup(net, make(trained, **settings), _gradients, _unchanged)


def _from_torch(make: Callable[..., torch.optim.Optimizer]) -> MethodBuilder:
    def build(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
        return _plain(make, net, lr=lr, weight_decay=weight_decay, **options)

    return build


def _decoupled(method: MethodBuilder) -> MethodBuilder:
    """Use a method on the prepared network, with bare convolutions and all linear layers but the last decoupled."""

    def build(net: nn.Module, example: Tensor, lr: float, weight_decay: float, **options: Any) -> Setup:
        model, _ = prepare_linears(net, example)
        return replace(method(model, example, lr, weight_decay, **options), finish=restore)

    return build


def _unchanged(model: nn.Module) -> nn.Module:
    return model


def _gradients(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _differentiable_gradients(loss: Tensor, parameters: Iterable[Tensor]) -> None:
    parameters = list(parameters)
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(loss, parameters, create_graph=True), strict=True
    ):
        parameter.grad = gradient


METHODS: dict[str, MethodBuilder] = {
    "sgdm": sgdm,
    "sgdm-wn": sgdm_wn,
    "sgd-ph": sgd_ph,
    "adam": _from_torch(torch.optim.Adam),
    "adamw": _from_torch(torch.optim.AdamW),
    "adamw-wn": _decoupled(_from_torch(torch.optim.AdamW)),
    "adabelief": adabelief,
    "adahessian": adahessian,
    "apollo": apollo,
    "adam-channelwise": adam_channelwise,
    "muon-adamw": muon_adamw,
    "muon-adamw-wn": _decoupled(muon_adamw),
    "muon-adamw-split": muon_adamw_split,
    "muon-ph": muon_ph,
    "soap": soap,
    "soap-wn": _decoupled(soap),
}
"""By name. ``options`` of a run become keyword arguments."""
