"""The copy of a model stands by itself: marks, hooks and patched methods come along and use the copy."""

from __future__ import annotations

import functools
import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from sgdph_fx import SGDPH, prepare, restore
from tests.trace.states import state_of

X = torch.rand(2, 3, 8, 8)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))


def all_are_trained(model: nn.Module, groups: list[dict[str, Any]]) -> bool:
    optimizer = SGDPH(groups, lr=0.1)
    optimizer.backward(model(X).pow(3).mean())
    return all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_marks_on_parameters_come_along() -> None:
    model = net()
    model[0].weight._no_weight_decay = True
    model[0].weight._optim = {"lr": 0.1}
    model[3].weight.note = model
    prepared = prepare(model).model
    for part in (prepared[0].direction, prepared[0].gain):
        assert part._no_weight_decay is True
        assert part._optim == {"lr": 0.1}
    assert prepared[3].weight.note is prepared
    back = restore(prepared)
    assert back[0].weight._optim == {"lr": 0.1}
    assert prepared[0].direction._optim is not model[0].weight._optim


def test_gradient_hooks_come_along() -> None:
    model, seen = net(), []
    model[2].weight.register_hook(lambda g: 2 * g)
    model[3].bias.register_post_accumulate_grad_hook(lambda p: seen.append(tuple(p.shape)))
    plain, prepared = net(), prepare(model).model
    twin = prepare(plain).model
    for candidate in (prepared, twin):
        candidate.train()(X).square().sum().backward()
    assert torch.equal(prepared[2].weight.grad, 2 * twin[2].weight.grad)
    assert seen == [(4,)]


def patched_by_closure(model: nn.Sequential) -> None:
    conv = model[0]
    conv.forward = lambda x: F.conv2d(x, conv.weight, conv.bias)


def patched_through_a_helper(model: nn.Sequential) -> None:
    parts = {"conv": model[0]}

    def convolve(x: Tensor) -> Tensor:
        return F.conv2d(x, parts["conv"].weight, parts["conv"].bias)

    model[0].forward = lambda x: convolve(x)


def patched_by_partial(model: nn.Sequential) -> None:
    def forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
        return F.conv2d(x, conv.weight, conv.bias)

    model[0].forward = functools.partial(forward, model[0])


def patched_by_method(model: nn.Sequential) -> None:
    def forward(self: nn.Conv2d, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)

    model[0].forward = types.MethodType(forward, model[0])


def patched_around_the_old_one(model: nn.Sequential) -> None:
    old = model[0].forward
    model[0].forward = lambda x: old(x) * 1.0


def hooked(model: nn.Sequential) -> None:
    conv = model[0]
    model[1].register_forward_hook(lambda module, args, result: result + 0 * conv.weight.sum())


def hooked_by_a_weak_reference(model: nn.Sequential) -> None:
    model[1].conv = weakref.ref(model[0])
    model[1].register_forward_hook(lambda module, args, result: result + 0 * module.conv().weight.sum())


def patched_with_a_default(model: nn.Sequential) -> None:
    model[0].forward = lambda x, conv=model[0]: F.conv2d(x, conv.weight, conv.bias)


def patched_with_a_default_by_name(model: nn.Sequential) -> None:
    def forward(x: Tensor, *, conv: nn.Module = model[0]) -> Tensor:
        return F.conv2d(x, conv.weight, conv.bias)

    model[0].forward = forward


def hooked_by_a_table_of_modules(model: nn.Sequential) -> None:
    scales = {model[0]: 2.0}
    model[1].register_forward_hook(
        lambda module, args, result: result * len(scales) * next(iter(scales)).weight.sum()
    )


PATCHES = [
    patched_with_a_default,
    patched_with_a_default_by_name,
    hooked_by_a_table_of_modules,
    patched_by_closure,
    patched_through_a_helper,
    patched_by_partial,
    patched_by_method,
    patched_around_the_old_one,
    hooked,
    hooked_by_a_weak_reference,
]


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("inplace", [False, True])
def test_patched_methods_and_hooks_use_the_copy(
    patch: Callable[[nn.Sequential], None], inplace: bool
) -> None:
    model = net()
    patch(model)
    before, y = state_of(model), model.eval()(X)
    model.train()
    before = state_of(model)
    prepared, groups, report = prepare(model, X, inplace=inplace)
    assert [row.name for row in report.plan.decoupled] == ["0"]
    assert torch.equal(prepared.eval()(X), y)
    assert all_are_trained(prepared.train(), groups)
    if inplace:
        return
    assert state_of(model) == before
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(restore(prepared).eval()(X), prepared.eval()(X))
    assert prepared(X).abs().max() > 0


def test_what_a_hook_collects_stays_shared() -> None:
    model, seen = net(), []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    prepare(model).model(X)
    assert seen == [1]


def test_the_state_that_two_functions_share_stays_shared_between_their_copies() -> None:
    model = net()
    conv, count = model[0], 0

    def step(*_: Any) -> None:
        nonlocal count
        count += int(conv.weight.numel() > 0)

    model[1].register_forward_hook(step)
    model[3].register_forward_hook(step)
    prepared = prepare(model).model
    prepared(X)
    first, second = (next(iter(prepared[place]._forward_hooks.values())) for place in (1, 3))
    assert first.__closure__[1].cell_contents == 2
    assert first.__closure__[0] is second.__closure__[0]


def test_an_optimizer_in_the_backward_pass_steps_the_copy() -> None:
    model = net()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: optimizers[p].step())
    before, prepared = state_of(model), prepare(model).model
    bias = prepared[3].bias.detach().clone()
    prepared(X).square().sum().backward()
    torch.testing.assert_close(prepared[3].bias.detach(), bias - 0.1 * prepared[3].bias.grad)
    assert state_of(model) == before


def test_the_original_is_not_kept_alive_by_its_copy() -> None:
    model = net()
    patched_by_closure(model)
    original = weakref.ref(model[0])
    prepared = prepare(model).model
    del model
    gc.collect()
    assert original() is None
    assert prepared(X).shape == (2, 4, 4, 4)


def of_weight_norm(model: nn.Sequential) -> None:
    nn.utils.weight_norm(model[0])


def of_spectral_norm(model: nn.Sequential) -> None:
    nn.utils.spectral_norm(model[0])


def of_pruning(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.random_unstructured(model[0], "weight", 2)  # a container of hooks
    prune.l1_unstructured(model[3], "bias", 2)


@pytest.mark.parametrize("take_apart", [of_weight_norm, of_spectral_norm, of_pruning])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_torchs_hooks_compute_do_not_keep_a_model_from_being_copied(
    take_apart: Callable[[nn.Sequential], None],
) -> None:
    """The original, by plain autograd, says what outputs and gradients have to be."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3).requires_grad_(False), nn.BatchNorm2d(4)
    )
    take_apart(model)
    model.eval()(X)  # what is computed has a graph now
    before = state_of(model)
    prepared = prepare(model, X).model
    assert state_of(model) == before
    for _ in range(2):
        results = [candidate(X) for candidate in (model, prepared)]
        torch.testing.assert_close(*results)
        for result in results:
            result.square().sum().backward()
    for name, parameter in prepared.named_parameters():
        torch.testing.assert_close(parameter.grad, model.get_parameter(name).grad, msg=name)
