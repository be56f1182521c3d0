"""A small transformer that predicts the next byte of a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BYTES", "LanguageModel"]

BYTES = 256
HEAD_WIDTH = 64
START_DEVIATION = 0.02


class LanguageModel(nn.Module):
    """A decoder with layer norm before each part, learned positions, and no biases.

    Args:
        width: Numbers for each position, a multiple of 64.
        depth: Number of blocks.
        context: The longest sequence.
    """

    def __init__(self, width: int, depth: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(BYTES, width)
        self.positions = nn.Parameter(torch.zeros(context, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, BYTES, bias=False)
        nn.init.normal_(self.positions, std=START_DEVIATION)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=START_DEVIATION)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``(N, T, 256)`` of the bytes that follow ``tokens``, ``(N, T)`` int64."""
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention to the past and a multilayer perceptron, each added to its input.

    Args:
        width: Numbers for each position.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.queries, self.keys, self.values, self.mix = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.widen, self.narrow = (
            nn.Linear(width, 4 * width, bias=False),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, T, width)`` to the same shape."""
        seen = self.norms[0](x)
        q, k, v = (self._by_head(layer(seen)) for layer in (self.queries, self.keys, self.values))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(attended.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.norms[1](x))))  # type: ignore[no-any-return]

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
