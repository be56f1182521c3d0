"""The smallest thing that raises each error about a model: reading it, copying it, rewriting it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import prune

from sgdph_fx import analyze, prepare, restore, weight_norm
from sgdph_fx.trace.memory import Memory
from sgdph_fx.transform.decouple import decouple
from sgdph_fx.transform.filters import Filters

__all__ = ["MODEL_TRIGGERS"]

X = torch.rand(1, 3, 4, 4)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())


def prepared() -> Any:
    return prepare(net()).model


class Tampered(nn.Conv2d):
    """Does something else once it is rewritten."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(3, 2, 1)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return self.change(y) if hasattr(self, "gain") else y


def not_put_back() -> None:
    with mock.patch.object(Memory, "put_back", side_effect=ValueError("gone")):
        prepare(net(), X)


class Unkeepable(Tensor):
    def __tensor_flatten__(self) -> Any:
        raise ValueError("not told")


def not_kept() -> None:
    model = net()
    model.odd = torch.zeros(1).as_subclass(Unkeepable)  # type: ignore[assignment]
    prepare(model, X)


def pruned() -> None:
    model = prepared()
    prune.l1_unstructured(model[0], "direction", 0.5)
    restore(model, inplace=True)


def under_fake_mode() -> None:
    with FakeTensorMode():
        model = net()
    prepare(model)


def nested() -> None:
    model = net()
    model.parts = nn.Parameter(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))
    prepare(model)


def under_inference_mode() -> None:
    with torch.inference_mode():
        model = net()
    prepare(model)


class Either(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(torch.rand(2, 3, 1, 1)), nn.Parameter(torch.rand(2, 3, 1, 1))

    def forward(self, x: Tensor, other: bool = False) -> Tensor:
        return torch.conv2d(x, self.other if other else self.one)


def not_reached() -> None:
    prepare(prepare(Either(), {"x": X, "other": True}).model, X)


def with_another_shape() -> None:
    prepared()[0].weight.data = torch.zeros(1)


def without_weight() -> None:
    prepared()[0].weight = None


def tied_afterwards() -> None:
    prepared()[0].weight = prepared()[0].weight


NAMED = net()
NAMED[0].forward = lambda x: NAMED[1](x)


class Shared(nn.Conv2d):
    def __deepcopy__(self, memo: Any) -> Any:
        return self


def with_a_result() -> nn.Module:
    model: Any = net()
    model.seen = model(X)
    return model


def in_a_circle() -> nn.Module:
    model: Any = net()
    model[1].parent = model
    return model


def half_frozen() -> None:
    model = prepared()
    model[0].direction.requires_grad_(False)
    analyze(model)


MODEL_TRIGGERS: tuple[Callable[[], Any], ...] = (
    lambda: weight_norm(nn.ReLU()),
    lambda: weight_norm(weight_norm(nn.Linear(2, 2))),
    not_put_back,
    not_kept,
    half_frozen,
    lambda: torch.jit.script(prepared()),
    pruned,
    under_inference_mode,
    under_fake_mode,
    nested,
    not_reached,
    lambda: prepared()[0].weight.zero_(),
    with_another_shape,
    without_weight,
    tied_afterwards,
    lambda: torch.from_dlpack(prepared()[0].weight.detach()),
    lambda: prepare(nn.Sequential(Tampered(lambda y: y[3:, 0, 0, math.floor(9)])), X),
    lambda: prepare(nn.Sequential(Tampered(lambda y: y[:, :1])), X),
    lambda: prepare(nn.Sequential(Tampered(lambda y: 2 * y)), X),
    lambda: prepare(NAMED),
    lambda: prepare(with_a_result()),
    lambda: prepare(in_a_circle()),
    lambda: decouple(nn.Sequential(Shared(3, 2, 1)), {"0.weight": Filters()}),
)
