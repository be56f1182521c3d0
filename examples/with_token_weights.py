"""A loop like torchtune's: losses are sums over tokens, and gradients are divided by their number at the end.

Such loops call a `scale_grads(model, 1 / tokens)`; `optimizer.scale_gradients(1 / tokens)` does it to the Hessian as
well. Run it by `python -m examples.with_token_weights`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import SGDPH, prepare

__all__ = ["LanguageModel", "sentences", "train"]

WORDS, LENGTH, IGNORED = 12, 8, -100


class LanguageModel(nn.Module):
    """Reads the words so far by a running mean, and scores the next one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, 16)
        self.norm = nn.LayerNorm(16)
        self.hidden = nn.Linear(16, 32)
        self.scores = nn.Linear(32, WORDS)
        self.register_buffer(
            "mean", torch.ones(LENGTH, LENGTH).tril() / torch.arange(1, LENGTH + 1).unsqueeze(1)
        )

    def forward(self, words: Tensor) -> Tensor:
        context = self.mean @ self.embedding(words)
        out: Tensor = self.scores(nn.functional.gelu(self.hidden(self.norm(context))))
        return out


def sentences() -> list[tuple[Tensor, Tensor]]:
    """Micro-batches of sentences in which each word is the one before plus one; some are shorter than others."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(16):
        first = torch.randint(WORDS, (4, 1), generator=generator)
        words = (first + torch.arange(LENGTH + 1)) % WORDS
        labels = words[:, 1:].clone()
        shorter = torch.randint(2, LENGTH, (4, 1), generator=generator)
        labels[torch.arange(LENGTH) >= shorter] = IGNORED
        made.append((words[:, :-1], labels))
    return made


def train(
    epochs: int = 5, accumulate: int = 2, clip: float | None = None, whole: bool = False
) -> tuple[nn.Module, float]:
    """The trained model and its last loss, the mean over tokens; ``whole`` batches in one piece, to compare with."""
    data = sentences()
    model, param_groups, _ = prepare(LanguageModel(), data[0][0])
    optimizer = SGDPH(param_groups, lr=0.1)
    for _ in range(epochs):
        for start in range(0, len(data), accumulate):
            pieces = data[start : start + accumulate]
            if whole:
                pieces = [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))]  # type: ignore[misc]
            total, tokens = 0.0, 0
            for words, labels in pieces:
                scores = model(words).flatten(0, 1)
                loss = cross_entropy(scores, labels.flatten(), ignore_index=IGNORED, reduction="sum")
                optimizer.backward(loss)
                total, tokens = total + loss.item(), tokens + int((labels != IGNORED).sum())
            optimizer.scale_gradients(1 / tokens)
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return model, total / tokens


if __name__ == "__main__":
    print(f"loss {train()[1]:.4f}")
