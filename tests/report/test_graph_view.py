"""The graph_view of small models, worked out by hand from their source."""

import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgdph_fx import prepare
from sgdph_fx.analysis.flow import flow_of
from sgdph_fx.report.graph_view import GraphView
from sgdph_fx.report.graph_view import graph_view_of as from_flow
from sgdph_fx.trace import trace_symbolically
from tests.growth import grows_in_proportion


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.norm(self.conv(x).flatten(2).unflatten(2, x.shape[2:])))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.block = Block()
        self.kernel = nn.Parameter(torch.ones(2, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        return F.conv2d(x, self.kernel).exp().sqrt().mean()


def graph_view_of(net: nn.Module, inputs: Tensor | None = None) -> GraphView:
    graph_view = prepare(net, inputs).report.graph_view
    assert graph_view is not None
    return graph_view


def names(graph_view: GraphView) -> list[str]:
    return [part.path or part.label for part in graph_view.parts]


def flow(graph_view: GraphView) -> set[tuple[str, str]]:
    name = names(graph_view)
    return {(name[a], name[b]) for a, b in graph_view.edges}


EDGES = {
    ("input", "stem"),
    ("stem", "block.conv"),
    ("stem", "add"),
    ("block.conv", "flatten"),
    ("flatten", "unflatten"),
    ("unflatten", "block.norm"),
    ("block.norm", "relu"),
    ("relu", "add"),
    ("add", "conv2d"),
    ("kernel", "conv2d"),
    ("conv2d", "3 operations"),
    ("3 operations", "output"),
}


def test_modules_are_parts_and_operations_off_every_way_to_a_norm_are_put_together() -> None:
    # relu and add are of one module, and add follows relu by no other way. flatten and unflatten stand on a way to a
    # norm, so they stay alone. What reads a shape for unflatten is no part.
    graph_view = graph_view_of(Net(), torch.zeros(2, 3, 8, 8))
    expected = {tuple("2 operations" if n in ("relu", "add") else n for n in edge) for edge in EDGES}
    assert flow(graph_view) == expected - {("2 operations", "2 operations")}


def test_each_part_stands_in_its_module_and_names_its_line() -> None:
    graph_view = graph_view_of(Net(), torch.zeros(2, 3, 8, 8))
    scope = {part.path or part.label: part.scope for part in graph_view.parts}
    assert (scope["block.conv"], scope["flatten"], scope["unflatten"]) == ("block", "block", "block")
    assert (scope["stem"], scope["3 operations"], scope["kernel"], scope["input"]) == ("", "", "", "")
    assert dict(graph_view.modules) == {"": "Net", "block": "Block"}
    (conv,) = (part for part in graph_view.parts if part.path == "block.conv")
    assert conv.source is not None
    assert conv.source.startswith("report/test_graph_view.py:")
    assert (conv.kind, conv.label, conv.shape) == ("convolution", "Conv2d", (2, 4, 6, 6))


def test_symbolic_tracing_gives_the_same_graph_view_without_shapes() -> None:
    recorded, symbolic = graph_view_of(Net(), torch.zeros(2, 3, 8, 8)), graph_view_of(Net())
    assert flow(symbolic) == flow(recorded)
    assert {(p.path, p.scope) for p in symbolic.parts} == {(p.path, p.scope) for p in recorded.parts}
    assert {p.shape for p in symbolic.parts} == {None}


def test_the_way_from_a_convolution_leads_to_its_norm_and_no_further() -> None:
    graph_view = graph_view_of(Net(), torch.zeros(2, 3, 8, 8))
    name = names(graph_view)
    routes = {name[start]: {name[place] for place in route} for start, route in graph_view.routes.items()}
    assert routes["block.conv"] == {"flatten", "unflatten", "block.norm"}
    # Both uses of the stem's output end its paths: another convolution, and an addition.
    assert routes["stem"] == {"block.conv", "2 operations"}


def test_what_happens_before_the_model_is_its_input() -> None:
    graph_view = prepare(
        nn.Sequential(nn.Conv2d(3, 2, 1)), lambda net: net(torch.rand(1, 3, 4, 4) * 2)
    ).report.graph_view
    assert graph_view is not None
    assert flow(graph_view) == {("inputs", "0"), ("0", "output")}


def test_a_graph_view_holds_no_tensor_and_no_module() -> None:
    graph_view = graph_view_of(Net())
    values = [value for part in graph_view.parts for value in (part.kind, part.label, part.path, part.scope)]
    assert {type(value) for value in values} == {str}


def test_the_time_grows_in_proportion_to_the_model() -> None:
    def seconds(blocks: int) -> float:
        model = nn.Sequential(*(Block() for _ in range(blocks)))
        flow = flow_of(trace_symbolically(model, True), model)
        start = time.process_time()
        assert len(from_flow(flow).parts) > 3 * blocks
        return time.process_time() - start

    seconds(100)
    assert grows_in_proportion(seconds, 500, 2500)
