"""Graph → which norm each convolution's output reaches, by what path.

The flow graph is a ``networkx.DiGraph`` over the nodes of a trace, with an edge for each use of a result's
*numbers*; reading a shape is no use. From a convolution, :func:`walk` goes forward through gain-transparent
operations and returns where the paths end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import networkx as nx
from torch import fx, nn

from sgdph_fx.rules import moves
from sgdph_fx.rules.calls import (
    SEVERAL_RESULTS,
    argument_reader,
    data_operands,
    is_in_place,
    numbers_read,
    operation_name,
)
from sgdph_fx.rules.kinds import Conv, Mixing, Norm, Rule, Transparent
from sgdph_fx.rules.layout import Argument, Call, Layout, Size, channels_at, settled
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.rules.operations import rule_of_operation
from sgdph_fx.trace import Trace

__all__ = ["Ending", "Flow", "flow_of", "walk"]


@dataclass(frozen=True, slots=True)
class Flow:
    """A trace as a graph of uses.

    Args:
        graph: Names of fx nodes; each carries ``node`` (the fx node) and ``rule``, each edge ``data``:
            whether the result enters as the operand that is normalized, convolved, passed on.
        modules: The model's modules by path.
        training: Whether it shows training mode.
    """

    graph: nx.DiGraph[str]
    modules: dict[str, nn.Module]
    training: bool

    def parameter(self, name: str) -> nn.Parameter | None:
        """The parameter of this dotted name; None if there is none."""
        owner, _, leaf = name.rpartition(".")
        try:
            return self.modules[owner]._parameters[leaf]
        except KeyError:
            return None


@dataclass(frozen=True, slots=True)
class Ending:
    """Where one path from a convolution ends.

    Args:
        node: The operation that ends it.
        rule: What that is; a :class:`Norm` only if the output is what it normalizes.
        layout: Where the channels are when they get there.
        via: The operations passed on the way.
        direct: Whether they are shape-only, and each the only consumer of the one before.
    """

    node: fx.Node
    rule: Rule
    layout: Layout
    via: tuple[str, ...]
    direct: bool


def flow_of(trace: Trace, model: nn.Module) -> Flow:
    """The flow graph of a trace of ``model``."""
    modules = dict(model.named_modules())
    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in trace.graph.nodes:
        graph.add_node(node.name, node=node, rule=_rule(node, modules, trace.training))
    latest: dict[fx.Node, fx.Node] = {}  # torch.fx does not record what is written in place
    for node in trace.graph.nodes:
        operands = data_operands(node)
        enters = set(operands)  # thousands, where the model returns as many
        for source in numbers_read(node):
            graph.add_edge(latest.get(source, source).name, node.name, data=source in enters)
        if operands and _writes_in_place(node, modules):
            latest[operands[0]] = node
    return Flow(graph, modules, trace.training)


def walk(flow: Flow, start: fx.Node) -> tuple[Ending, ...]:
    """The endings of all paths from the convolution ``start``, nearest first."""
    endings: dict[tuple[str, Layout], Ending] = {}
    first = _layout_of(flow, start)
    layouts = {start: first}
    queue: deque[tuple[fx.Node, Layout, tuple[str, ...], bool]] = deque([(start, first, (), True)])
    seen: set[tuple[str, Layout]] = set()
    while queue:
        node, layout, via, direct = queue.popleft()
        direct = direct and flow.graph.out_degree(node.name) == 1
        for consumer, rule, moved in _steps(flow, node, layout, layouts):
            key = (consumer.name, moved)
            if isinstance(rule, Transparent):
                if key not in seen:
                    seen.add(key)
                    layouts.setdefault(consumer, moved)
                    still = direct and rule.shape_only
                    queue.append((consumer, moved, (*via, _label(flow, consumer)), still))
            elif key not in endings:
                endings[key] = Ending(consumer, rule, moved, via, direct)
    return tuple(endings.values())


def _steps(
    flow: Flow, node: fx.Node, layout: Layout, layouts: Mapping[fx.Node, Layout]
) -> Iterator[tuple[fx.Node, Rule, Layout]]:
    """One step from ``node`` to each of its consumers: what it is to the channels, and where they are after it."""
    for name, edge in flow.graph[node.name].items():
        consumer: fx.Node = flow.graph.nodes[name]["node"]
        rule: Rule = flow.graph.nodes[name]["rule"] if edge["data"] else Mixing()
        moved: Layout | None = layout
        if isinstance(rule, Transparent):
            moved = _move(flow, rule, node, consumer, layout, layouts)
            rule = rule if moved is not None else Mixing()
        yield consumer, rule, moved or layout


def _move(
    flow: Flow,
    rule: Transparent,
    node: fx.Node,
    consumer: fx.Node,
    layout: Layout,
    layouts: Mapping[fx.Node, Layout],
) -> Layout | None:
    shape = consumer.meta.get("shape")
    if rule.move is moves.index and _returns_several(flow, node):
        return settled(layout, consumer.name, shape)
    call = Call(_arguments(flow, consumer), shape, lambda size: _extent(size, layouts))
    moved = rule.move(layout, call)
    return None if moved is None else settled(moved, consumer.name, shape)


def _extent(size: object, layouts: Mapping[fx.Node, Layout]) -> tuple[Size, ...] | None:
    """The sizes that multiply to ``x.shape[1]``, ``x.size(1)`` or a product of such, where the walk knows ``x``."""
    if isinstance(size, int):
        return (size,)
    if not isinstance(size, fx.Node):
        return None
    name, args = operation_name(size), size.args
    if name == "mul" and len(args) == 2:
        one, other = (_extent(factor, layouts) for factor in args)
        return None if one is None or other is None else (*one, *other)
    if name == "getitem" and isinstance(args[0], fx.Node) and operation_name(args[0]) in ("shape", "size"):
        args = (args[0].args[0], args[1])
    elif name != "size" or len(args) != 2:
        return None
    source, at = args
    dims = layouts[source].dims if isinstance(source, fx.Node) and source in layouts else None
    where = None if dims is None else moves.position(at, len(dims))
    return None if dims is None or where is None else tuple(factor.size for factor in dims[where])


def _returns_several(flow: Flow, node: fx.Node) -> bool:
    """Whether an index into the result picks a tensor, and not a part of one."""
    if "shape" in node.meta:
        return False
    if node.op != "call_module":
        return operation_name(node) in SEVERAL_RESULTS
    return bool(getattr(flow.modules[str(node.target)], "return_indices", False))


def _arguments(flow: Flow, node: fx.Node) -> Argument:
    if node.op != "call_module":
        return argument_reader(node)
    module = flow.modules[str(node.target)]
    return lambda position, name, default: getattr(module, name, default)


def _rule(node: fx.Node, modules: dict[str, nn.Module], training: bool) -> Rule:
    if node.op == "call_module":
        module = modules[str(node.target)]
        rule = rule_of(module) or Mixing()
        if training and isinstance(rule, Norm) and _frozen(node, module, rule):
            return replace(rule, statistics="frozen")
        return rule
    return rule_of_operation(node) if node.op in ("call_function", "call_method") else Mixing()


def _frozen(node: fx.Node, module: nn.Module, rule: Norm) -> bool:
    """Whether a batch or instance norm uses its running statistics even while the model trains."""
    keeps_statistics = rule.statistics in ("batch", "instance")
    return (
        keeps_statistics
        and bool(node.meta.get("frozen"))
        and getattr(module, "running_mean", None) is not None
    )


def _writes_in_place(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return getattr(modules[str(node.target)], "inplace", False) is True
    return node.op in ("call_function", "call_method") and is_in_place(node)


def _layout_of(flow: Flow, conv: fx.Node) -> Layout:
    rule = flow.graph.nodes[conv.name]["rule"]
    assert isinstance(rule, Conv)
    shape = conv.meta.get("shape")
    unbatched = shape is not None and len(shape) == rule.dims + 1
    channel = 0 if unbatched else 1
    module = flow.modules.get(str(conv.target)) if conv.op == "call_module" else None
    channels = shape[channel] if shape is not None else getattr(module, "out_channels", None)
    layout = channels_at(rule.dims + 1 + channel, channel, channels)
    return settled(layout, conv.name, shape)


def _label(flow: Flow, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(flow.modules[str(node.target)]).__name__
    return operation_name(node)
