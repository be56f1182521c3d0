"""One small vision transformer, trained under each scheme by torch's own optimizers.

Run it by ``python -m examples.with_schemes``; it prints where each kind of parameter went, and the losses.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import VisionTransformer

from examples.data import batches
from sgdph_fx import SGDPH, analyze, assign, param_groups, prepare

__all__ = ["train"]


def network() -> nn.Module:
    """A vision transformer of two layers for the images of ``data.py``."""
    torch.manual_seed(0)
    model: nn.Module = VisionTransformer(
        image_size=12, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4
    )
    return model


def optimizers(scheme: str, model: nn.Module) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    """The model to train, and the optimizers that train it."""
    x = torch.randn(2, 3, 12, 12)
    if scheme == "sgd-ph":
        prepared = prepare(model, x)
        return prepared.model, [SGDPH(prepared.param_groups, lr=0.02)]
    if scheme == "muon":
        sets = param_groups(model, x, scheme="muon", muon_lr=0.02, adamw_lr=3e-3)
        return model, [torch.optim.Muon(sets["muon"]), torch.optim.AdamW(sets["adamw"])]
    groups = param_groups(model, x, scheme=scheme, lr=3e-3, weight_decay=0.05)
    assert isinstance(groups, list)
    return model, [torch.optim.AdamW(groups, lr=3e-3)]


def train(scheme: str, epochs: int = 8) -> tuple[float, float]:
    """The mean loss of the first and of the last epoch."""
    model, chosen = optimizers(scheme, network())
    means = []
    for _ in range(epochs):
        losses = []
        for images, labels in batches():
            loss = cross_entropy(model(images), labels)
            if scheme == "sgd-ph":
                chosen[0].backward(loss)  # type: ignore[attr-defined]
            else:
                loss.backward()
            for optimizer in chosen:
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.detach())
        means.append(float(torch.stack(losses).mean()))
    return means[0], means[-1]


def main() -> None:
    """Print the table of one scheme, and the losses of all."""
    plan = analyze(network(), torch.randn(2, 3, 12, 12)).without_rewriting()
    counts = Counter((a.to, a.reason) for a in assign(plan, "muon"))
    for (to, reason), count in sorted(counts.items()):
        print(f"{to:6} {count:3} × {reason}")
    for scheme in ("sgd-ph", "no-decay", "layer-decay", "muon"):
        first, last = train(scheme)
        print(f"{scheme}: {first:.3f} → {last:.3f}")


if __name__ == "__main__":
    main()
