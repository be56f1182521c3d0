"""Tracing by recording one real run: whatever runs in PyTorch can be read so."""

from __future__ import annotations

import dataclasses
import functools
import operator
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from sgdph_fx.errors import TraceError
from sgdph_fx.trace.graph import Trace, add_node
from sgdph_fx.trace.hooks import Around, forward_hook, forward_pre_hook, has_hooks, watched
from sgdph_fx.trace.inputs import Run
from sgdph_fx.trace.interception import module_calls
from sgdph_fx.trace.leaves import leaves_of
from sgdph_fx.trace.outputs import tensors_in
from sgdph_fx.trace.scripted import ConvolutionCounter, is_scripted
from sgdph_fx.trace.source import calling_line, failing_line, outermost, require_forward, signature
from sgdph_fx.trace.state import mode
from sgdph_fx.trace.unseen import History, unseen_code, watched_writes
from sgdph_fx.transform.filters import dotted

__all__ = ["trace_by_recording"]

_PLAIN = frozenset({int, float, bool, str, slice, type(None), type(Ellipsis), torch.dtype})
_SEQUENCES = (list, tuple)


@outermost
def trace_by_recording(model: nn.Module, run: Run, training: bool) -> Trace:
    """Record the operations of ``run(model)``.

    Args:
        model: The model; what the run changes in it is the caller's to put back.
        run: Runs the model on example inputs.
        training: Whether to run in training mode.

    Raises:
        TraceError: if the run itself fails; the message names the line.
    """
    recorder = _Recorder(model)
    try:
        with mode(model, training), module_calls(recorder.paths, recorder.follow), recorder:
            result = run(model)
    except Exception as error:
        require_forward(model, error)
        raise TraceError(
            f"{type(model).__name__} does not run on the example inputs in {_name(training)} mode: "
            f"{type(error).__name__}{failing_line(error)} ({error}). "
            f"It is called as `{signature(model)}`; pass inputs on which a plain call of the model works."
        ) from error
    recorder.graph.output(recorder.as_nodes(list(tensors_in(result).values())))
    return Trace(recorder.graph, "recorded", training, unseen=recorder.unseen)


class _Recorder(TorchFunctionMode):
    """Writes each outermost torch function, and each call of a module that the rules know, as a node."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.unseen: Counter[str] = Counter()
        self.paths: dict[nn.Module, str] = {}
        self._leaves = leaves_of(model)
        self._inside_leaf = False
        self._inside: str | None = None  # outside the model: a callable may make inputs, or a loss
        self._constants: dict[int, str] = {}
        self._history = History()
        self._nodes: dict[int, tuple[weakref.ref[Tensor], fx.Node]] = {}
        for path, module in model.named_modules():
            self.paths[module] = path
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                self._constants.setdefault(id(tensor), dotted(path, name))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        written = watched_writes(func, args, kwargs)
        result = func(*args, **kwargs)
        if self._inside_leaf:
            return result
        kind, target, extra = _as_target(func)
        if target is operator.setitem:
            self._name(args[0], self._add(kind, target, *self._operands(args, kwargs)))
        elif _holds_tensor(result):
            positional, named = self._operands(args, kwargs)
            self._write(kind, target, (*positional, *extra), named, result)
        elif changed := written():
            node = self._write(kind, target, *self._operands(args, kwargs), None)
            for tensor in changed:
                self._know(tensor, node)
        return result

    def follow(self, path: str, module: nn.Module, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs the module at ``path``; what is known of it as a whole becomes one node."""
        if self._inside_leaf:
            return run(*args, **kwargs)
        if module in self._leaves:
            return self._call_leaf(path, module, run, args, kwargs)
        outside, self._inside = self._inside, path
        try:
            return run(*args, **kwargs)
        finally:
            self._inside = outside

    def _call_leaf(
        self, path: str, module: nn.Module, run: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        run = self._counted(module, path, run) if is_scripted(module) else run
        # Not to be asked at all costs less than to answer every function that this one is passed over.
        on_top = _get_current_function_mode() is self  # type: ignore[no-untyped-call]
        if on_top:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._inside_leaf = True
        try:
            nodes = self._operands(args, kwargs)
            if has_hooks(module) and not is_scripted(module):
                with watched(module, args, kwargs) as around:
                    result = run(*args, **kwargs)
            else:
                result = run(*args, **kwargs)
                around = Around()
            if around.inputs_changed:
                nodes = (self._write("call_function", forward_pre_hook, *nodes, None),), {}
            # Backward hooks give a result another object, and the same numbers.
            own = around.result if around.result_changed else result
            node = self._write("call_module", path, *nodes, own)
            node.meta["frozen"] = not module.training
            if around.result_changed:
                self._write("call_function", forward_hook, (node,), {}, result)
        finally:
            self._inside_leaf = False
            if on_top:
                self.__enter__()  # type: ignore[no-untyped-call]
        return result

    def _counted(self, module: nn.Module, path: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with ConvolutionCounter(module) as counter:
                result = run(*args, **kwargs)
            self.unseen[path] += counter.count
            return result

        return counted

    def _operands(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple([self.as_nodes(a) for a in args]), {n: self.as_nodes(a) for n, a in kwargs.items()}

    def as_nodes(self, value: Any) -> Any:
        """``value`` with each tensor replaced by the node that made it."""
        if type(value) in _PLAIN:
            return value
        if isinstance(value, Tensor):
            return self._node_of(value)
        if isinstance(value, float):
            return float(value)  # NumPy's, of which a scale is made as often as of Python's
        if isinstance(value, _SEQUENCES):
            return tuple(self.as_nodes(v) for v in value)
        if isinstance(value, Mapping):
            return {str(k): self.as_nodes(v) for k, v in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return tuple(self.as_nodes(getattr(value, f.name)) for f in dataclasses.fields(value))
        return str(value)

    def _write(self, kind: str, target: Any, args: Any, kwargs: Any, result: Any) -> fx.Node:
        node = self._add(kind, target, args, kwargs)
        node.meta["source"] = calling_line()
        self._name(result, node)
        return node

    def _add(self, kind: str, target: Any, args: Any, kwargs: Any) -> fx.Node:
        node = add_node(self.graph, kind, target, args, kwargs)
        node.meta["scope"] = self._inside
        return node

    def _name(self, result: Any, node: fx.Node) -> None:
        if isinstance(result, Tensor):
            self._know(result, node)
            return
        items = result.items() if isinstance(result, Mapping) else enumerate(_sequence(result))
        for key, value in items:
            if _holds_tensor(value):
                self._name(value, self._add("call_function", operator.getitem, (node, key), {}))

    def _node_of(self, tensor: Tensor) -> fx.Node:
        reference, node = self._nodes.get(id(tensor), (None, None))
        if node is not None and reference is not None and reference() is tensor:
            return node
        node = self._history.maker(tensor) or self._first_seen(tensor)
        self._know(tensor, node)
        return node

    def _first_seen(self, tensor: Tensor) -> fx.Node:
        """A node for a tensor that no node made: the model's own, an input, or the result of code that is not seen."""
        name = self._constants.get(id(tensor))
        if name is not None:
            return add_node(self.graph, "get_attr", name)
        read = [self._node_of(s) if isinstance(s, Tensor) else s for s in self._history.sources(tensor)]
        if read:
            return self._add("call_function", unseen_code, tuple(read), {})
        return add_node(self.graph, "placeholder", "input")

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        _set_shape(node, tensor)
        self._history.note(tensor, node)
        self._nodes[id(tensor)] = weakref.ref(tensor), node


def _set_shape(node: fx.Node, tensor: Tensor) -> None:
    if not tensor.is_nested:  # which has no one shape
        node.meta["shape"] = tuple(tensor.shape)


@functools.cache
def _as_target(func: Any) -> tuple[str, Any, tuple[Any, ...]]:
    """A torch function as the node kind and target that torch.fx would write."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return "call_function", getattr, (func.__self__.__name__,)
    plain = name.strip("_")
    if name.startswith("__") and hasattr(operator, plain):
        return "call_function", getattr(operator, plain), ()
    if getattr(torch.Tensor, name, None) is func:
        return "call_method", name, ()
    return "call_function", func, ()


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Tensor):
        return True
    if type(value) in _PLAIN:
        return False
    items = value.values() if isinstance(value, Mapping) else _sequence(value)
    return any(_holds_tensor(v) for v in items)


def _sequence(value: Any) -> tuple[Any, ...]:
    if isinstance(value, _SEQUENCES):
        return tuple(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(getattr(value, f.name) for f in dataclasses.fields(value))
    return ()


def _name(training: bool) -> str:
    return "training" if training else "evaluation"
