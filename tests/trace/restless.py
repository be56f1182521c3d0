"""Models that change something of their own when they run, each something else."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["BUFFERS", "CHANGES", "Merging", "Restless"]


@dataclass
class Cache:
    keys: list[Tensor] = field(default_factory=list)
    last: Tensor | None = None


@dataclass(slots=True)
class Slots:
    count: int = 0


class Restless(nn.Module):
    """A convolution, a batch norm, and a change."""

    def __init__(self, change: Callable[[Restless, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.register_buffer("seen", torch.zeros(0))
        self.register_buffer("total", torch.zeros(3))
        self.plain = torch.zeros(3)
        self.notes: list[Any] = [1, [2]]
        self.table: dict[str, Any] = {"inner": {"deep": [1]}}
        self.ordered = OrderedDict(a=1, b=2)
        self.last, self.names = deque([1, 2], maxlen=2), {"a"}
        self.empty: dict[str, Any] = {}
        self.cache, self.slots, self.space = Cache(), Slots(), SimpleNamespace(count=0)
        self.array = np.zeros(3)
        self.generator = torch.Generator("cpu").manual_seed(3)
        self.rng = np.random.default_rng(3)
        self.python_rng = random.Random(3)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        self.change(self, x)
        return self.norm(self.conv(x))


class Merging(nn.Conv2d):
    """An adapter that is merged into the weight in evaluation, and taken out again for training."""

    merged = False

    def train(self, mode: bool = True) -> Merging:
        if self.merged is mode:
            self.weight.data += -0.1 if mode else 0.1
            self.merged = not mode
        super().train(mode)
        return self


def _resize(m: Restless, x: Tensor) -> None:
    m.seen.resize_(4)
    m.seen.copy_(x.amax((2, 3)).mean(1).mean().expand(4))


def _renew(m: Restless, x: Tensor) -> None:
    m.conv.weight = nn.Parameter(m.conv.weight.detach() * 2)


def _half(m: Restless, x: Tensor) -> None:
    m.conv.weight.data = m.conv.weight.data.half()
    m.conv.weight.data = m.conv.weight.data.float() + 1


def _hook_everywhere(m: Restless, x: Tensor) -> None:
    conv = m.conv
    conv.register_forward_hook(lambda *_, **__: None, with_kwargs=True, always_call=True)
    conv.register_forward_pre_hook(lambda *_: None, with_kwargs=False)
    conv.register_forward_pre_hook(lambda *_: None, with_kwargs=True)
    conv.register_full_backward_hook(lambda *_: None)
    conv.register_full_backward_pre_hook(lambda *_: None)
    m.norm.register_backward_hook(lambda *_: None)
    conv.register_state_dict_pre_hook(lambda *_: None)
    conv.register_state_dict_post_hook(lambda *_: None)
    conv.register_load_state_dict_pre_hook(lambda *_: None)
    conv.register_load_state_dict_post_hook(lambda *_: None)
    conv.weight.register_hook(lambda g: g)
    conv.weight.register_post_accumulate_grad_hook(lambda p: None)


def _fill_containers(m: Restless, x: Tensor) -> None:
    m.notes.append(x)
    m.notes[1].append(3)
    m.table["inner"]["deep"].append(2)
    m.table["new"] = x
    m.ordered.move_to_end("a")
    m.last.append(3)
    m.names.add("b")
    m.empty["x"] = x


def _fill_objects(m: Restless, x: Tensor) -> None:
    m.cache.keys.append(x)
    m.cache.last = x
    m.slots.count += 1
    m.space.count += 1
    m.array += 1


def _draw(m: Restless, x: Tensor) -> None:
    torch.rand(2, generator=m.generator)
    m.rng.random()
    m.python_rng.random()


def _flip_flags(m: Restless, x: Tensor) -> None:
    m.norm.eval()
    m.conv.weight.requires_grad_(False)
    m.total.requires_grad_(True)


def _touch_gradients(m: Restless, x: Tensor) -> None:
    if m.conv.weight.grad is not None:
        m.conv.weight.grad.mul_(3)
    m.conv.bias.grad = torch.ones(4)


def _grow(m: Restless, x: Tensor) -> None:
    m.late = nn.Linear(2, 2)
    m.conv.extra = nn.Parameter(torch.zeros(2))
    m.register_buffer("later", torch.zeros(1))
    m.__class__ = type("Other", (Restless,), {})


def _join_the_graph(m: Restless, x: Tensor) -> None:
    with torch.enable_grad():
        m.total += m.conv.weight.sum()


CHANGES: dict[str, Callable[[Restless, Tensor], Any]] = {
    "weight.data in place": lambda m, x: m.conv.weight.data.mul_(2),
    "weight.data replaced": lambda m, x: setattr(m.conv.weight, "data", m.conv.weight.data * 2),
    "weight by NumPy": lambda m, x: np.multiply(w := m.conv.weight.data.numpy(), 2, out=w),
    "weight's sign of zero": lambda m, x: m.total.neg_(),
    "weight of another dtype": _half,
    "parameter replaced": _renew,
    "buffer resized": _resize,
    "buffer replaced": lambda m, x: setattr(m, "total", torch.ones(5)),
    "plain tensor": lambda m, x: m.plain.add_(1),
    "transposed in place": lambda m, x: m.conv.weight.data.transpose_(2, 3),
    "containers": _fill_containers,
    "objects": _fill_objects,
    "generators": _draw,
    "flags": _flip_flags,
    "gradients": _touch_gradients,
    "hooks": _hook_everywhere,
    "modules and class": _grow,
    "buffer in the graph": _join_the_graph,
    "attributes of a parameter": lambda m, x: setattr(m.conv.weight, "mark", 1),
    "torch's random numbers": lambda m, x: (torch.rand(2), np.random.rand(), random.random()),
}


def _quantized() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


BUFFERS: dict[str, tuple[Callable[[], Tensor], Callable[[Tensor], Any]]] = {
    "sparse": (lambda: torch.eye(3).to_sparse(), lambda t: t.mul_(2)),
    "sparse, another pattern": (
        lambda: torch.eye(3).to_sparse(),
        lambda t: t.add_(torch.ones(3, 3).to_sparse()),
    ),
    "CSR": (lambda: torch.eye(3).to_sparse_csr(), lambda t: t.values().mul_(2)),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), lambda t: t.mul_(2)),
    "float8": (lambda: torch.ones(3).to(torch.float8_e4m3fn), lambda t: t.zero_()),
    "quantized": (_quantized, lambda t: t.copy_(torch.zeros(3))),
    "complex": (lambda: torch.ones(3, dtype=torch.cfloat).conj(), lambda t: t.mul_(2j)),
    "expanded": (lambda: torch.ones(1).expand(3), lambda t: t[:1].mul_(2)),
    "of another memory format": (
        lambda: torch.rand(1, 2, 2, 2).to(memory_format=torch.channels_last),
        lambda t: t.mul_(2),
    ),
    "not a number": (lambda: torch.tensor([torch.nan, -0.0]), lambda t: t.zero_()),
    "MKLDNN": (lambda: torch.ones(3).to_mkldnn(), lambda t: t.mul_(2)),
}
