"""Tracing without inputs, by torch.fx."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from sgdph_fx.errors import TraceError
from sgdph_fx.rules.calls import wrapped_functions
from sgdph_fx.rules.modules import is_leaf
from sgdph_fx.trace.graph import Trace, add_node
from sgdph_fx.trace.scripted import is_scripted
from sgdph_fx.trace.source import calling_line, failing_line
from sgdph_fx.trace.state import mode, modes_differ, reads_of_training

__all__ = ["trace_symbolically"]


def trace_symbolically(model: nn.Module, training: bool) -> Trace:
    """Trace ``model`` as torch.fx does, with every module that the rules know as one node.

    Only arguments without a default become placeholders; the others keep their default, so that an
    ``if targets is not None`` takes the path that a plain call takes. Where every argument has a default, the first of
    those that are None by default becomes one: nothing can be computed from none.

    Raises:
        TraceError: if the model's control flow depends on data; the message names the line.
    """
    with mode(model, training):
        differ = modes_differ(model)
        try:
            with reads_of_training() as readers:
                graph = _Tracer().trace(model)
        except Exception as error:
            raise TraceError(_explain(model, error)) from error
    return Trace(graph, "symbolic", training, either_mode=not differ and not readers)


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__(autowrap_functions=wrapped_functions())
        self._inside = ""

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        return {id(p): name for name, p in self.root.named_parameters()}

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        placeholders = [self.create_proxy("placeholder", name, (), {}) for name in _required(self.root)]
        # Called as a module, the root itself can be a leaf: a lone convolution, say.
        return lambda root, *args: root(*args), [self.root, *placeholders]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        # torch.fx looks a parameter up by going through all of them, which is quadratic in their number.
        name = self._names.get(id(attr_val)) if isinstance(attr_val, nn.Parameter) else None
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_arg(self, a: Any) -> Any:
        return a.node if type(a) is fx.Proxy else super().create_arg(a)

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None
    ) -> fx.Node:
        # Not torch.fx's own way there, which copies the stack of modules into each node.
        node = add_node(self.graph, kind, target, args, kwargs)
        if kind != "placeholder":
            node.meta["source"] = calling_line()
            node.meta["scope"] = self._inside
        return node

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        path = self.submodule_paths.get(m) if self.submodule_paths else None
        if is_scripted(m):
            raise TypeError(f"{path or type(m).__name__} is TorchScript, which only a run can look into")
        if path is None:  # one that the model does not own has no name to go by
            return forward(*args, **kwargs)
        if not is_leaf(m):
            return self._look_into(path, forward, args, kwargs)
        result = self.create_proxy("call_module", path, args, kwargs)
        result.node.meta["frozen"] = not m.__dict__["training"]
        return result

    def _look_into(self, path: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        outside, self._inside = self._inside, path
        try:
            return forward(*args, **kwargs)
        finally:
            self._inside = outside


def _required(model: nn.Module) -> list[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in plain and p.default is inspect.Parameter.empty]
    takes_any = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    optional = [p.name for p in parameters if p.kind in plain and p.default is None]
    return names or (["input"] if takes_any else optional[:1])


def _explain(model: nn.Module, error: Exception) -> str:
    where = failing_line(error) or "an unknown line"
    return (
        f"{type(model).__name__} cannot be traced without inputs: {type(error).__name__} at {where} "
        f"({_first_line(error)}). torch.fx runs the model on placeholders, which have no values to branch or loop on. "
        "Pass example_inputs (on the command line: --input), and one real run is recorded instead."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
