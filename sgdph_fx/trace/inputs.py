"""Example inputs in whatever form they come, as one thing: a function that runs the model."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode, _pop_mode_temporarily

from sgdph_fx.errors import TraceError
from sgdph_fx.trace.interception import module_calls
from sgdph_fx.trace.reachable import follow
from sgdph_fx.trace.snapshot import Snapshot

__all__ = ["ExampleInputs", "Run", "runner"]

ExampleInputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any] | Callable[[nn.Module], Any]
Run = Callable[[nn.Module], Any]


@contextmanager
def runner(example_inputs: ExampleInputs, model: nn.Module) -> Iterator[Run]:
    """What runs a model on ``example_inputs``, each time on the same numbers.

    The model gets copies of the inputs, so a layer that works in place does not change yours. A callable hands over
    its own: what the model is called with is put back before the next run and at the end, and so are the numbers of
    all tensors that the callable can reach.

    Args:
        example_inputs: A tensor (the one argument), a tuple of positional arguments, a mapping of keyword
            arguments, or a callable that runs the model in its own way; it is passed the model, if it
            takes an argument. Tensors are moved to no device: give them where the model is.
        model: The model to run.

    Raises:
        TraceError: for anything else.
    """
    if isinstance(example_inputs, Mapping):
        yield lambda model: model(**_fresh(dict(example_inputs)))
    elif isinstance(example_inputs, tuple):
        yield lambda model: model(*_fresh(example_inputs))
    elif isinstance(example_inputs, Tensor | list):
        yield lambda model: model(_fresh(example_inputs))
    elif callable(example_inputs):
        yield from _calling(example_inputs, model)
    else:
        raise TraceError(
            f"example_inputs is a {type(example_inputs).__name__}; pass a tensor, a tuple of positional arguments, "
            "a dict of keyword arguments, or a callable that takes the model and runs it."
        )


def _calling(function: Callable[..., Any], model: nn.Module) -> Iterator[Run]:
    inputs = [Snapshot(follow(_variables(function), known=model.modules()).of_memory_alone())]
    takes_model = _takes_an_argument(function)

    def keep(path: str, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        inputs.append(Snapshot(follow([args, kwargs], known=module.modules()).without_results()))
        return call(*args, **kwargs)

    def put_back() -> None:
        while len(inputs) > 1:
            inputs.pop().put_back()
        inputs[0].put_back()

    def run(model: nn.Module) -> Any:
        put_back()
        with module_calls({model: ""}, keep):
            return function(model) if takes_model else function()

    try:
        yield run
    finally:
        put_back()


def _variables(function: Callable[..., Any]) -> Iterator[Any]:
    """What a callable can reach by name: itself, and the variables of its file that it names."""
    yield function
    code = getattr(function, "__code__", None)
    if isinstance(code, types.CodeType):
        names = function.__globals__
        yield from (
            names[name] for name in code.co_names if isinstance(names.get(name), Tensor | list | tuple | dict)
        )


def _takes_an_argument(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    return True


def _fresh(value: Any) -> Any:
    """``value`` with copies of all tensors in it; what cannot be copied is handed on as it is."""
    memo: dict[int, Any] = {}
    recorder = _get_current_function_mode()  # type: ignore[no-untyped-call]
    with nullcontext() if recorder is None else _pop_mode_temporarily():
        for part in follow([value]).seen.values():
            if isinstance(part, Tensor):
                memo[id(part)] = part.detach().clone().requires_grad_(part.requires_grad)
            elif isinstance(part, nn.Module):
                memo[id(part)] = part  # a model that is passed to a model is not an input to be copied
    try:
        return copy.deepcopy(value, memo)
    except Exception:
        return torch.utils._pytree.tree_map(lambda leaf: memo.get(id(leaf), leaf), value)
