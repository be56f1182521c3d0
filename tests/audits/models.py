"""Networks whose Hessian blocks are known from elsewhere, or in part by a proof."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Everything", "batch_of", "everything", "quadratic"]


class Everything(nn.Module):
    """A convolution whose bias batch norm absorbs, attention by torch's fused function, layer norm, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.qkv = nn.Linear(6, 18)
        self.out = nn.Linear(6, 6)
        self.layer_norm = nn.LayerNorm(6)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.softplus(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
        queries, keys, values = self.qkv(x).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(queries, keys, values)
        x = x + self.out(heads.transpose(1, 2).flatten(2))
        logits: Tensor = self.classifier(self.layer_norm(x).mean(1).tanh())
        return logits


def everything(dtype: torch.dtype = torch.float64) -> Everything:
    """With weights large enough for every part to matter."""
    torch.manual_seed(0)
    net = Everything()
    for parameter in net.parameters():
        nn.init.normal_(parameter, mean=0.5, std=0.6)
    return net.to(dtype)


def batch_of(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Six images of 4 × 4 and their labels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 4, 4, generator=generator).to(dtype), torch.tensor([0, 1, 2, 3, 1, 0])


def quadratic(out: Tensor, matrix: Tensor) -> Tensor:
    """½ bᵀMb of a linear layer on inputs of zeros, which returns its bias b: the Hessian by the bias is M."""
    return out[0] @ matrix @ out[0] / 2
