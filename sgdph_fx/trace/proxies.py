"""A model run on placeholders: what torch.fx does, without patching a class that other threads use."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sgdph_fx.trace.graph import add_node
from sgdph_fx.trace.hooks import forward_hook, forward_pre_hook, may_change
from sgdph_fx.trace.interception import module_calls
from sgdph_fx.trace.opaque_functions import functions_as_nodes
from sgdph_fx.trace.scripted import is_scripted
from sgdph_fx.trace.source import calling_line, outermost
from sgdph_fx.transform.filters import dotted

__all__ = ["ProxyTracer"]


class ProxyTracer(fx.Tracer):
    """Makes proxies as torch.fx does, but patches no class: it follows this model's modules, in this thread."""

    def __init__(self, model: nn.Module, leaves: Collection[nn.Module]) -> None:
        super().__init__()
        self.root = model
        self.graph = fx.Graph(tracer_cls=type(self))
        self.tensor_attrs = {}
        self._inside = ""
        self._leaves = leaves
        self._paths: dict[nn.Module, str] = {}
        self._names: dict[int, str] = {}
        for path, module in model.named_modules():
            self._paths[module] = path
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                self._names.setdefault(id(tensor), dotted(path, name))
        self._computed: list[Tensor] = []  # kept, so that no other tensor gets the id of one
        self._proxies: dict[str, fx.Proxy] = {}

    @outermost
    def run(self) -> fx.Graph:
        """The graph of one call of the model."""
        with (
            module_calls(self._paths, self.follow),
            _parameters_as_proxies(self._paths, self.parameter),
            functions_as_nodes(self._paths),
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
        """An operand as torch.fx writes it; a tensor becomes a constant of the graph."""
        if type(a) is fx.Proxy:
            return a.node
        if isinstance(a, Tensor):
            return self._constant(a)
        return super().create_arg(a)

    def _constant(self, tensor: Tensor) -> fx.Node:
        """A tensor of the model, or one that its code computed without a placeholder."""
        name = self._names.get(id(tensor))
        if name is None:
            name = self._names[id(tensor)] = f"_tensor_constant{len(self._computed)}"
            self._computed.append(tensor)
        node = self.create_node("get_attr", name, (), {})
        node.meta["shape"] = tuple(tensor.shape)
        return node

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None
    ) -> fx.Node:
        """A node, with the line of the call and the module that it lies in."""
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
        if module in self._leaves:
            around = may_change(module)
            if around.inputs_changed:
                args, kwargs = (self.create_proxy("call_function", forward_pre_hook, args, kwargs),), {}
            result = self.create_proxy("call_module", path, args, kwargs)
            result.node.meta["frozen"] = not module.__dict__["training"]
            if around.result_changed:
                return self.create_proxy("call_function", forward_hook, (result,), {})
            return result
        outside, self._inside = self._inside, path
        try:
            with _of_any_rank(module):
                return run(*args, **kwargs)
        finally:
            self._inside = outside


@contextmanager
def _of_any_rank(module: nn.Module) -> Iterator[None]:
    """Keeps a batch norm that is looked into from asking a placeholder how many dimensions it has."""
    if not isinstance(module, _BatchNorm) or "_check_input_dim" in module.__dict__:
        yield
        return
    module.__dict__["_check_input_dim"] = lambda input: None
    try:
        yield
    finally:
        del module.__dict__["_check_input_dim"]


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
