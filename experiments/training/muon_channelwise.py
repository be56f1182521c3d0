"""Muon on directions and matrices, SGD-PH's step on channel-wise parameters, AdamW on what is left."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from experiments.training.mixed_optimizers import CombinedOptimizer, MatrixMuon, OptimizerLike, split_matrices
from sgdph_fx import SGDPH, Config, prepare

__all__ = ["MuonChannelwise", "muon_adamw_channelwise", "muon_channelwise", "prepare_linears"]


class MuonChannelwise:
    """Three optimizers in one step.

    Args:
        sgdph: Of the channel-wise parameters.
        others: Muon and AdamW, of all other parameters.
    """

    def __init__(self, sgdph: SGDPH, others: OptimizerLike) -> None:
        self.sgdph, self.others = sgdph, others

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all three."""
        return [*self.sgdph.param_groups, *self.others.param_groups]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self.sgdph.zero_grad()
        self.others.zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Leave behind all gradients, and the Hessian that is due."""
        self.sgdph.backward(loss)

    def step(self) -> None:
        """Take one step with each."""
        self.others.step()
        self.sgdph.step()

    def state_dict(self) -> dict[str, Any]:
        """Give the state of all three."""
        return {"sgdph": self.sgdph.state_dict(), "others": self.others.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each its state back."""
        self.sgdph.load_state_dict(state["sgdph"])
        self.others.load_state_dict(state["others"])


Linears = Literal["decouple", "keep"]
"""What becomes of all linear layers but the last."""


def prepare_linears(
    net: nn.Module, example: Tensor, linears: Linears = "decouple"
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Decouple bare convolutions, and all linear layers but the last.

    Args:
        net: The network.
        example: One batch of inputs.
        linears: ``"keep"`` leaves linear layers as they are.

    Returns:
        The prepared model and its parameter groups.
    """
    names = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    chosen = names[:-1] if linears == "decouple" else []
    model, groups, _ = prepare(net, example, config=Config(rules=dict.fromkeys(chosen, "decouple")))
    return model, list(groups)


def muon_channelwise(
    net: nn.Module,
    example: Tensor,
    lr: float,
    weight_decay: float,
    *,
    adamw_lr: float = 1e-3,
    channelwise_lr: float = 1e-4,
    linears: Linears = "decouple",
    **options: Any,
) -> tuple[nn.Module, MuonChannelwise]:
    """Prepare the network, linear layers too, and make its three optimizers.

    Args:
        net: The network.
        example: One batch of inputs.
        lr: Muon's learning rate.
        weight_decay: Decay of all three, decoupled from the gradient, times each one's learning rate.
        adamw_lr: AdamW's learning rate.
        channelwise_lr: τ τ_SO of SGDPH.
        linears: As of :func:`prepare_linears`.
        options: Further options of SGDPH: ``probe``, ...
    """
    model, groups = prepare_linears(net, example, linears)
    second, others = _beside_muon(model, groups, lr, weight_decay, adamw_lr)
    # SGDPH decays by τ η W: with τ = 1 and τ_SO = channelwise_lr, η has to bring the factor.
    sgdph = SGDPH(
        second, lr=1.0, second_order_lr=channelwise_lr, weight_decay=weight_decay * channelwise_lr, **options
    )
    return model, MuonChannelwise(sgdph, others)


def muon_adamw_channelwise(
    net: nn.Module,
    example: Tensor,
    lr: float,
    weight_decay: float,
    *,
    adamw_lr: float = 1e-3,
    channelwise_lr: float = 1e-4,
    linears: Linears = "decouple",
) -> tuple[nn.Module, CombinedOptimizer]:
    """Do as :func:`muon_channelwise` does, with AdamW's step in place of SGD-PH's.

    Args:
        net: The network.
        example: One batch of inputs.
        lr: Muon's learning rate.
        weight_decay: Decay, decoupled from the gradient, times each one's learning rate.
        adamw_lr: AdamW's learning rate for what is neither a matrix nor channel-wise.
        channelwise_lr: AdamW's learning rate for the channel-wise parameters.
        linears: As of :func:`prepare_linears`.
    """
    model, groups = prepare_linears(net, example, linears)
    second, others = _beside_muon(model, groups, lr, weight_decay, adamw_lr)
    channelwise = [p for group in second for p in group["params"]]
    adamw = torch.optim.AdamW(channelwise, lr=channelwise_lr, weight_decay=weight_decay)
    return model, CombinedOptimizer(others, adamw)


def _beside_muon(
    model: nn.Module, groups: list[dict[str, Any]], lr: float, weight_decay: float, adamw_lr: float
) -> tuple[list[dict[str, Any]], CombinedOptimizer]:
    """Give the groups of a prepared network's channel-wise parameters, and Muon and AdamW for all others."""
    second = [group for group in groups if group["order"] == 2]
    channelwise = {id(p) for group in second for p in group["params"]}
    matrices, rest = split_matrices(model)
    others = CombinedOptimizer(
        MatrixMuon(matrices, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(
            [p for p in rest if id(p) not in channelwise], lr=adamw_lr, weight_decay=weight_decay
        ),
    )
    return second, others
