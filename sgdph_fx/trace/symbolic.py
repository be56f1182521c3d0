"""Tracing without inputs, by torch.fx."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, fx, nn

from sgdph_fx.errors import TraceError
from sgdph_fx.rules.modules import is_leaf
from sgdph_fx.trace.graph import Trace, add_node
from sgdph_fx.trace.interception import module_calls
from sgdph_fx.trace.opaque_functions import functions_as_nodes
from sgdph_fx.trace.scripted import is_scripted
from sgdph_fx.trace.source import calling_line, failing_line, first_line, outermost, signature
from sgdph_fx.trace.state import mode
from sgdph_fx.transform.filters import dotted

__all__ = ["trace_symbolically"]


def trace_symbolically(model: nn.Module, training: bool) -> Trace:
    """Trace ``model`` as torch.fx does, with every module that the rules know as one node.

    Only arguments without a default become placeholders; the others keep their default, so that an
    ``if targets is not None`` takes the path that a plain call takes. Where every argument has a default, the first of
    those that are None by default becomes one: nothing can be computed from none.

    Raises:
        TraceError: if the model's control flow depends on data; the message names the line.
    """
    try:
        with mode(model, training):
            graph = _Tracer(model).run()
    except Exception as error:
        raise TraceError(_explain(model, error)) from error
    return Trace(graph, "symbolic", training)


class _Tracer(fx.Tracer):
    """Makes proxies as torch.fx does, but patches no class: it follows this model's modules, in this thread."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.root = model
        self.graph = fx.Graph(tracer_cls=type(self))
        self.tensor_attrs = {}
        self._inside = ""
        self._paths = {module: path for path, module in model.named_modules()}
        self._names: dict[int, str] = {}
        for path, module in model.named_modules():
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                self._names.setdefault(id(tensor), dotted(path, name))
        self._proxies: dict[str, fx.Proxy] = {}

    @outermost
    def run(self) -> fx.Graph:
        """The graph of one call of the model."""
        with (
            module_calls(self._paths, self.follow),
            _parameters_as_proxies(self._paths, self.parameter),
            functions_as_nodes(self.root),
            getattr(fx._symbolic_trace, "_is_fx_tracing_context", nullcontext)(True),
        ):
            positional, keywords = _required(self.root)
            inputs = {
                name: self.create_proxy("placeholder", name, (), {}) for name in (*positional, *keywords)
            }
            result = self.root(*map(inputs.get, positional), **{name: inputs[name] for name in keywords})
            self.create_node("output", "output", (self.create_arg(result),), {})
        return self.graph

    def parameter(self, value: nn.Parameter) -> Any:
        """The proxy of a parameter of the model; another tensor itself."""
        name = self._names.get(id(value))
        if name is None:
            return value
        if name not in self._proxies:
            self._proxies[name] = self.create_proxy("get_attr", name, (), {})
        return self._proxies[name]

    def create_arg(self, a: Any) -> Any:
        if type(a) is fx.Proxy:
            return a.node
        if isinstance(a, Tensor) and id(a) in self._names:
            return self.create_node("get_attr", self._names[id(a)], (), {})
        return super().create_arg(a)

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None
    ) -> fx.Node:
        # Not torch.fx's own way there, which copies the stack of modules into each node.
        node = add_node(self.graph, kind, target, args, kwargs)
        if kind != "placeholder":
            node.meta["source"] = calling_line()
            node.meta["scope"] = self._inside
        return node

    def follow(self, path: str, module: nn.Module, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """One node for a module that the rules know; any other is looked into."""
        if is_scripted(module):
            raise TypeError(f"{path or type(module).__name__} is TorchScript, which only a run can look into")
        if is_leaf(module):
            result = self.create_proxy("call_module", path, args, kwargs)
            result.node.meta["frozen"] = not module.__dict__["training"]
            return result
        outside, self._inside = self._inside, path
        try:
            return run(*args, **kwargs)
        finally:
            self._inside = outside


class _Parameters(dict[str, Any]):
    """A module's parameters, of which each is handed out as a proxy where the module's code reads it."""

    as_proxy: Callable[[Any], Any]

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return value if value is None else self.as_proxy(value)


@contextmanager
def _parameters_as_proxies(modules: Iterable[nn.Module], as_proxy: Callable[[Any], Any]) -> Iterator[None]:
    changed = [(m, m._parameters) for m in modules if m._parameters and not is_scripted(m)]
    try:
        for module, own in changed:
            module.__dict__["_parameters"] = stand_in = _Parameters(own)
            stand_in.as_proxy = as_proxy
        yield
    finally:
        for module, own in changed:
            module.__dict__["_parameters"] = own


def _required(model: nn.Module) -> tuple[list[str], list[str]]:
    """The arguments that become placeholders: by position, by keyword."""
    parameters = inspect.signature(model.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.default is inspect.Parameter.empty]
    positional = [p.name for p in needed if p.kind in plain]
    keywords = [p.name for p in needed if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if positional or keywords:
        return positional, keywords
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return ["input"], []
    optional = [p for p in parameters if p.default is None]
    first = [p.name for p in optional if p.kind in plain][:1]
    return first, [] if first else [p.name for p in optional if p.kind is inspect.Parameter.KEYWORD_ONLY][:1]


def _explain(model: nn.Module, error: Exception) -> str:
    return (
        f"{type(model).__name__} cannot be traced without inputs: {type(error).__name__}{failing_line(error)} "
        f"({first_line(error)}). torch.fx runs the model on placeholders, which have no values to branch or loop on. "
        f"Pass example_inputs for `{signature(model)}` (on the command line: --input), and one real run is recorded "
        "instead."
    )
