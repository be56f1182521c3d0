"""Hooks and patched methods of modules that are read as one operation, against what a gain on the filters changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import Config, analyze

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))


def hooked(at: int, hook: Callable[..., Any], **options: bool) -> nn.Sequential:
    model = plain()
    model[at].register_forward_hook(hook, **options)
    return model


def pre_hooked(at: int, hook: Callable[..., Any], **options: bool) -> nn.Sequential:
    model = plain()
    model[at].register_forward_pre_hook(hook, **options)
    return model


def patched(at: int, method: Callable[[nn.Module, Tensor], Tensor]) -> nn.Sequential:
    model = plain()
    own = model[at]
    own.forward = lambda x: method(own, x)
    return model


def with_backward_hooks() -> nn.Sequential:
    model = plain()
    model[0].register_full_backward_hook(lambda *_: None)
    model[1].register_full_backward_pre_hook(lambda *_: None)
    return model


def read_both_ways() -> nn.Sequential:
    model = with_backward_hooks()
    model[0].register_forward_hook(lambda *_: None)
    model[0].register_forward_pre_hook(lambda *_: None)
    return model


def _in_place(_: nn.Module, args: tuple[Tensor, ...]) -> None:
    args[0].sigmoid_()


CASES: dict[str, Callable[[], nn.Module]] = {
    "a result replaced": lambda: hooked(0, lambda m, args, result: torch.sigmoid(result)),
    "a result changed in place": lambda: hooked(0, lambda m, args, result: result.sigmoid_()),
    "a result replaced, with keywords": lambda: hooked(
        0, lambda m, args, kwargs, result: result.exp(), with_kwargs=True
    ),
    "inputs replaced": lambda: pre_hooked(1, lambda m, args: (args[0].exp(),)),
    "inputs changed in place": lambda: pre_hooked(1, _in_place),
    "keywords replaced": lambda: pre_hooked(
        1, lambda m, args, kwargs: ((), {"input": args[0].tanh()}), with_kwargs=True
    ),
    "inputs of the convolution replaced": lambda: pre_hooked(0, lambda m, args: (args[0].exp(),)),
    "the result of the norm replaced": lambda: hooked(1, lambda m, args, result: result.exp()),
    "a result only read": lambda: hooked(0, lambda m, args, result: None),
    "the same result returned": lambda: hooked(0, lambda m, args, result: result),
    "backward hooks": with_backward_hooks,
    "a backward hook beside one that reads": read_both_ways,
    "a convolution's method patched": lambda: patched(0, lambda m, x: torch.tanh(nn.Conv2d.forward(m, x))),  # type: ignore[arg-type]
    "a method patched by itself": lambda: patched(0, lambda m, x: nn.Conv2d.forward(m, x)),  # type: ignore[arg-type]
    "a norm's method patched": lambda: patched(1, lambda m, x: nn.BatchNorm2d.forward(m, x.exp())),  # type: ignore[arg-type]
}
# Without a run a hook may do anything, so a convolution is called bare although its gain is absorbed.
ONLY_A_RUN_TELLS = {
    "a backward hook beside one that reads",
    "a result only read",
    "the same result returned",
    "inputs of the convolution replaced",
    "the result of the norm replaced",
}


def made(case: str) -> nn.Sequential:
    torch.manual_seed(0)
    return CASES[case]()


def a_gain_is_absorbed(case: str) -> bool:
    """Whether the training-mode output stays what it is when each filter is scaled by a number of its own."""
    gains = torch.linspace(0.5, 3, 8, dtype=torch.float64)
    one, other = made(case).double(), made(case).double()
    with torch.no_grad():
        other[0].weight.mul_(gains.view(-1, 1, 1, 1))  # type: ignore[operator, union-attr]
        other[0].bias.mul_(gains)  # type: ignore[operator, union-attr]
        return torch.allclose(one(X.double()), other(X.double()), atol=1e-2)


@pytest.mark.parametrize("case", CASES)
def test_what_hooks_and_patched_methods_change_is_seen(case: str) -> None:
    (recorded,) = analyze(made(case), X, config=Config("absorbing")).convolutions
    assert recorded.verdict == ("normalized" if a_gain_is_absorbed(case) else "bare")


@pytest.mark.parametrize("case", CASES)
def test_without_a_run_a_hook_is_never_passed_over(case: str) -> None:
    (symbolic,) = analyze(made(case), config=Config("absorbing")).convolutions
    if case not in ONLY_A_RUN_TELLS:
        assert symbolic.verdict == ("normalized" if a_gain_is_absorbed(case) else "bare")
    assert symbolic.verdict == "bare" or a_gain_is_absorbed(case)


def test_the_reason_names_the_hook() -> None:
    (entry,) = analyze(made("a result replaced"), X).convolutions
    assert "to forward_hook" in entry.reason


def test_a_bias_before_a_hook_is_not_called_redundant() -> None:
    assert not analyze(made("inputs replaced"), X).hints


@pytest.mark.parametrize(
    "take_apart", [lambda c: nn.utils.weight_norm(c), lambda c: nn.utils.spectral_norm(c)]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_hooks_of_torch_that_make_a_weight_change_no_input(
    take_apart: Callable[[nn.Module], nn.Module],
) -> None:
    model = nn.Sequential(take_apart(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8))
    assert [analyze(model, x).convolutions[0].verdict for x in (X, None)] == ["normalized"] * 2


def test_the_hooks_of_the_model_are_those_of_before() -> None:
    model = made("inputs replaced")
    before = [(list(m._forward_hooks.items()), list(m._forward_pre_hooks.items())) for m in model.modules()]
    analyze(model, X)
    assert before == [
        (list(m._forward_hooks.items()), list(m._forward_pre_hooks.items())) for m in model.modules()
    ]
