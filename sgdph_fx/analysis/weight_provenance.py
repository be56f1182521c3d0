"""Where the weight of a functional convolution comes from: whose parameter it is, and what is done to it on the way.

``F.conv1d(x, self.conv.weight.squeeze(1).unsqueeze(1))`` convolves by a parameter as much as ``self.conv(x)`` does, and
so does ``F.conv2d(x, self.weight * self.scale)`` with a constant scale. A weight that a router mixes, a style modulates
or a network generates has a parameter behind it, too, but a gain on that would not be a gain on the filters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import fx, nn

from sgdph_fx.analysis.constants import is_constant
from sgdph_fx.plan.wording import first_few
from sgdph_fx.rules.calls import METADATA, argument_reader, numbers_read, operation_name
from sgdph_fx.rules.kinds import Conv, Linear, Norm, Transparent
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.rules.operations import rule_of_operation

__all__ = ["Provenance", "provenance"]

# No gradient comes back through these.
_CUT = frozenset({"detach", "data"})


@dataclass(frozen=True, slots=True)
class Provenance:
    """What makes a weight.

    Args:
        parameter: The node of the parameter behind it, or of the module that owns that parameter; None if no
            parameter is.
        name: That parameter's name; empty if no parameter is behind it.
        obstacle: Why a gain on the parameter is not a gain on the filters, as a clause; empty if it is.
    """

    parameter: fx.Node | None
    name: str
    obstacle: str = ""


def provenance(weight: object, scope: str, modules: Mapping[str, nn.Module]) -> Provenance | None:
    """What makes the weight that a convolution was called with.

    Args:
        weight: The argument of the call.
        scope: Path of the module whose forward makes the call; its own parameters are looked for first.
        modules: The model's modules by path.

    Returns:
        None for a fixed kernel: one of numbers, buffers and inputs alone, in which nothing is trained.
    """
    if not isinstance(weight, fx.Node):
        return None
    node: fx.Node | None = weight
    while node is not None and not _is_parameter(node, modules):
        node = _same_filters(node, modules)
    if node is not None:
        return Provenance(node, str(node.target))
    sources = list(_sources(weight, modules))
    if not sources:
        return None
    found = min(enumerate(sources), key=lambda item: (*_rank(item[1], scope), item[0]))[1]
    if not found.name:
        return Provenance(None, "", "its weight is computed by the model, and no parameter is behind it")
    return Provenance(found.node, found.name, _obstacle(found))


def _obstacle(source: _Source) -> str:
    cut = next((operation for operation in source.operations if operation in _CUT), None)
    if cut is not None:
        return f"its weight is cut off from {source.name} by {cut}, so no gradient reaches that"
    made = f"its weight is computed from {source.name} by {first_few(list(dict.fromkeys(source.operations)))}"
    return f"{made}, so a gain on that would not be a gain on the filters"


def _is_parameter(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    return _parameter(node, modules) is not None


def _parameter(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Parameter | None:
    owner, _, leaf = str(node.target).rpartition(".")
    module = modules.get(owner) if node.op == "get_attr" else None
    return None if module is None else module._parameters.get(leaf)


def _same_filters(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """The operand that ``node`` is a view, a part, a cast or a constant multiple of; None if it is more than that."""
    if node.op not in ("call_function", "call_method"):
        return None
    name, arg = operation_name(node), argument_reader(node)
    first, second = arg(0, "input", None), arg(1, "other", None)
    rule = rule_of_operation(node)
    if name in _CUT:
        return None
    if (isinstance(rule, Transparent) and rule.shape_only) or name == "neg":
        operand = first
    elif name == "mul":
        operand = first if is_constant(second, modules) else second if is_constant(first, modules) else None
    elif name == "div":
        operand = first if is_constant(second, modules) else None
    else:
        operand = None
    return operand if isinstance(operand, fx.Node) else None


@dataclass(frozen=True, slots=True)
class _Source:
    """A parameter that a computed weight depends on, and the operations from it to the convolution, last one first."""

    node: fx.Node
    name: str
    owner: str
    dims: int
    numbers: int
    operations: tuple[str, ...]


def _sources(weight: fx.Node, modules: Mapping[str, nn.Module]) -> Iterator[_Source]:
    """What a weight is computed from, nearest first. Results of convolutions and norms are data, not weights."""
    waiting: deque[tuple[fx.Node, tuple[str, ...]]] = deque([(weight, ())])
    seen = {weight}
    while waiting:
        node, operations = waiting.popleft()
        parameter = _parameter(node, modules)
        if parameter is not None:
            owner = str(node.target).rpartition(".")[0]
            yield _Source(node, str(node.target), owner, parameter.dim(), parameter.numel(), operations)
            continue
        if node.op == "call_module":
            yield _made_by(node, modules[str(node.target)], operations)
            continue
        if node.op not in ("call_function", "call_method") or operation_name(node) in METADATA:
            continue
        rule = rule_of_operation(node)
        if isinstance(rule, Conv | Norm) and not _normalizes_a_weight(node, modules):
            yield _Source(node, "", "", 0, 0, operations)
            continue
        shape_only = isinstance(rule, Transparent) and rule.shape_only and operation_name(node) not in _CUT
        passed = operations if shape_only else (*operations, _shown(node))
        fresh = [operand for operand in numbers_read(node) if operand not in seen]
        seen.update(fresh)
        waiting.extend((operand, passed) for operand in fresh)


def _normalizes_a_weight(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a norm standardizes a weight, as ``F.batch_norm(self.weight.view(1, out, -1), ...)`` does."""
    operand = argument_reader(node)(0, "input", None)
    while isinstance(operand, fx.Node) and not _is_parameter(operand, modules):
        operand = _same_filters(operand, modules)
    return isinstance(operand, fx.Node)


def _made_by(node: fx.Node, module: nn.Module, operations: tuple[str, ...]) -> _Source:
    """A module's result: a linear layer generates weights by its own; what any other returns is data."""
    path, kind = str(node.target), type(module).__name__
    if isinstance(rule_of(module), Linear):
        name, parameter = max(module.named_parameters(), key=lambda item: item[1].numel(), default=("", None))
        if parameter is not None:
            whole = f"{path}.{name}".lstrip(".")
            return _Source(node, whole, path, 0, parameter.numel(), (*operations, kind))
    return _Source(node, "", path, 0, 0, operations)


def _rank(source: _Source, scope: str) -> tuple[bool, bool, bool, int]:
    """Parameters before mere data, what has the dimensions of a kernel first, then what the calling module owns."""
    return not source.name, source.dims < 3, source.owner != scope, -source.numbers


def _shown(node: fx.Node) -> str:
    return operation_name(node) or getattr(node.target, "__name__", type(node.target).__name__)
