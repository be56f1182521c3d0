"""The dense Gauss-Newton matrix JᵀAJ of one parameter, with J and A by torch.func."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["dense_diagonal"]


def dense_diagonal(net: nn.Module, name: str, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Its diagonal for the mean cross-entropy of a batch, of the parameter's shape."""
    x, y = batch
    parameter = net.get_parameter(name).detach()

    def outputs(p: Tensor) -> Any:
        return torch.func.functional_call(net, {name: p}, (x,))

    z = outputs(parameter).detach()
    jacobian = torch.func.jacrev(outputs)(parameter).reshape(z.numel(), -1)
    a = torch.func.hessian(lambda out: cross_entropy(out, y))(z).reshape(z.numel(), z.numel())
    return (jacobian.T @ a @ jacobian).diagonal().reshape(parameter.shape).detach()
