"""Steps by 2×2 blocks written out with dense matrices and eigenvalues, and the network that they are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["NAMES", "Norms", "batch", "blocks", "gradients", "groups", "of_eigenvalues"]

NAMES = ("norm.weight", "norm.bias")


class Norms(nn.Module):
    """Convolution, norm, linear: the norm has four channels, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.linear = nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 3)
        for p in self.double().parameters():
            nn.init.normal_(p, mean=0.5 if p.dim() == 1 else 0.0, std=0.4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(torch.tanh(self.norm(self.conv(x))).mean((2, 3)))
        return found

    def loss(self, data: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(self(data[0]), data[1])


def batch(seed: int, size: int = 6) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(size, 2, 5, 5, dtype=torch.float64, generator=g), torch.randint(
        3, (size,), generator=g
    )


def groups(net: nn.Module, **norm: Any) -> list[dict[str, Any]]:
    """The norm's two in a group each, then the biases, then the weights; in registration order by their index."""
    rows = {name: (i, (name, p)) for i, (name, p) in enumerate(net.named_parameters())}
    parts = [[NAMES[0]], [NAMES[1]], ["conv.bias", "linear.bias"], ["conv.weight", "linear.weight"]]
    return [
        {
            "params": [rows[n][1] for n in part],
            "index": [rows[n][0] for n in part],
            "order": 1 if part is parts[3] else 2,
            **(norm if part[0] in NAMES else {}),
        }
        for part in parts
    ]


def blocks(net: Norms, data: tuple[Tensor, Tensor], curvature: str, z: Tensor | None = None) -> Tensor:
    """The 2×2 matrix of each channel, ``(4, 2, 2)``, out of the dense matrix of all eight numbers.

    Args:
        net: The network, at the point where the matrix is wanted.
        data: A batch.
        curvature: Of which matrix.
        z: The vector of a probe; the exact entries without one.
    """
    values = torch.cat([net.get_parameter(name).detach() for name in NAMES])

    def outputs(flat: Tensor) -> Any:
        return torch.func.functional_call(net, dict(zip(NAMES, flat.split(4), strict=True)), (data[0],))

    def of_outputs(out: Tensor) -> Tensor:
        return cross_entropy(out, data[1])

    if curvature == "hessian":
        matrix = torch.func.hessian(lambda flat: of_outputs(outputs(flat)))(values)
    else:
        jacobian = torch.func.jacrev(outputs)(values).reshape(-1, 8)
        at = outputs(values).detach()
        bend = torch.func.hessian(of_outputs)(at).reshape(at.numel(), at.numel())
        matrix = jacobian.T @ bend @ jacobian
    four = matrix.view(2, 4, 2, 4).transpose(1, 2)
    read = four.diagonal(dim1=2, dim2=3) if z is None else z * (four @ z)
    return ((read + read.transpose(0, 1)) / 2).permute(2, 0, 1).detach()


def gradients(net: Norms, data: tuple[Tensor, Tensor]) -> Tensor:
    """Those of the norm, ``(4, 2)``."""
    params = [net.get_parameter(name) for name in NAMES]
    return torch.stack(torch.autograd.grad(net.loss(data), params), 1)


def of_eigenvalues(matrix: Tensor, h: Callable[[Tensor], Tensor]) -> Tensor:
    """h(M) of symmetric matrices, ``(..., 2, 2)``."""
    values, vectors = torch.linalg.eigh(matrix)
    found: Tensor = vectors @ torch.diag_embed(h(values)) @ vectors.mT
    return found
