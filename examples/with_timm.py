"""timm: SGDPH by its name in timm's optimizer factory, and a hook on the criterion for timm's training loop.

timm's loop sees `is_second_order` and calls `loss.backward(create_graph=True)`, which works and is slow. With the hook
the optimizer does the backward pass, for any loss scaler of timm's. Run it by `python -m examples.with_timm`.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import OptimInfo, create_optimizer_v2
from timm.optim._optim_factory import default_registry
from timm.utils import dispatch_clip_grad
from torch import nn

from examples.data import batches, network
from sgdph_fx import SGDPH, attach, prepare

__all__ = ["train"]

default_registry.register(
    OptimInfo("sgdph", SGDPH, "SGD with Partial Hessian", has_momentum=True, second_order=True)
)


def train(
    epochs: int = 5,
    loss_scaler: Any = None,
    accumulate: int = 1,
    clip: float | None = None,
    attached: bool = True,
) -> tuple[nn.Module, float]:
    """The core of ``train_one_epoch`` in timm's ``train.py``; the trained model and its last loss."""
    prepared = prepare(network(), torch.randn(2, 3, 12, 12))
    model = prepared.model
    optimizer = create_optimizer_v2(
        model, "sgdph", lr=0.02, momentum=0.9, param_group_fn=lambda _: prepared.param_groups
    )
    loss_fn = nn.CrossEntropyLoss()
    if attached:
        loss_fn.register_forward_hook(lambda _, args, loss: attach(loss, optimizer))
    second_order = hasattr(optimizer, "is_second_order") and optimizer.is_second_order
    optimizer.zero_grad()
    for _ in range(epochs):
        for number, (images, labels) in enumerate(batches()):
            need_update = (number + 1) % accumulate == 0
            loss = loss_fn(model(images), labels) / accumulate
            if loss_scaler is not None:
                loss_scaler(
                    loss,
                    optimizer,
                    clip_grad=clip,
                    parameters=model.parameters(),
                    create_graph=second_order,
                    need_update=need_update,
                )
            else:
                loss.backward(create_graph=second_order)
                if need_update:
                    if clip is not None:
                        dispatch_clip_grad(model.parameters(), clip)
                    optimizer.step()
            if need_update:
                optimizer.zero_grad()
    return model, loss.item() * accumulate


if __name__ == "__main__":
    print(f"loss {train()[1]:.4f}")
