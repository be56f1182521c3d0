"""timm: SGDPH by its name in timm's optimizer factory, and a loss scaler for timm's training loop.

timm's loop sees `is_second_order` and calls `loss.backward(create_graph=True)` by itself, which works and is slow;
with the scaler here it is the optimizer that does the backward pass. Run it by `python -m examples.with_timm`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import OptimInfo, create_optimizer_v2
from timm.optim._optim_factory import default_registry
from timm.utils import NativeScaler, dispatch_clip_grad
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from examples.data import batches, network
from sgdph_fx import SGDPH, prepare

__all__ = ["Scaler", "train"]

default_registry.register(
    OptimInfo("sgdph", SGDPH, "SGD with Partial Hessian", has_momentum=True, second_order=True)
)


class Scaler(NativeScaler):  # type: ignore[misc]
    """timm's, with the optimizer's own backward pass; the device "cpu" has no need to scale."""

    def __call__(
        self,
        loss: Tensor,
        optimizer: SGDPH,
        clip_grad: float | None = None,
        clip_mode: str = "norm",
        parameters: Iterable[Tensor] | None = None,
        create_graph: bool = False,
        need_update: bool = True,
    ) -> None:
        optimizer.backward(self._scaler.scale(loss))
        if need_update:
            if clip_grad is not None:
                self._scaler.unscale_(optimizer)
                dispatch_clip_grad(parameters, clip_grad, mode=clip_mode)
            self._scaler.step(optimizer)
            self._scaler.update()


def train(
    epochs: int = 5, loss_scaler: Any = None, accumulate: int = 1, clip: float | None = None
) -> tuple[nn.Module, float]:
    """The core of ``train_one_epoch`` in timm's ``train.py``; the trained model and its last loss."""
    prepared = prepare(network(), torch.randn(2, 3, 12, 12))
    model = prepared.model
    optimizer = create_optimizer_v2(
        model, "sgdph", lr=0.02, momentum=0.9, param_group_fn=lambda _: prepared.param_groups
    )
    second_order = hasattr(optimizer, "is_second_order") and optimizer.is_second_order
    optimizer.zero_grad()
    for _ in range(epochs):
        for number, (images, labels) in enumerate(batches()):
            need_update = (number + 1) % accumulate == 0
            loss = cross_entropy(model(images), labels) / accumulate
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
    print(f"loss {train(loss_scaler=Scaler('cpu'))[1]:.4f}")
