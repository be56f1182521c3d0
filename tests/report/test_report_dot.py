"""The graph for Graphviz, read by another program's parser."""

import pydot
import pytest
from torch import Tensor, nn

from sgdph_fx import Report, prepare
from sgdph_fx.errors import PlanError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_clusters_nodes_edges_and_marks() -> None:
    (graph,) = pydot.graph_from_dot_data(prepare(Net()).report.to_dot())
    (body,) = graph.get_subgraphs()
    assert body.get_label() == '"body Sequential"'
    inside = {node.get_label(): node.get_attributes() for node in body.get_nodes()}
    assert inside.keys() == {'"body.0\\nConv2d"', '"body.1\\nBatchNorm2d"'}
    assert "fillcolor" in inside['"body.1\\nBatchNorm2d"']
    assert "fillcolor" not in inside['"body.0\\nConv2d"']
    outside = {
        node.get_label(): node.get_attributes() for node in graph.get_nodes() if node.get_name() != "node"
    }
    assert outside.keys() == {'"input"', '"head\\nConv2d"', '"output"'}
    assert outside['"head\\nConv2d"']["xlabel"] == '"bare"'
    edges = {(edge.get_source(), edge.get_destination()) for edge in graph.get_edges()}
    assert edges == {("p0", "p1"), ("p1", "p2"), ("p2", "p3"), ("p3", "p4")}


def test_a_plan_alone_has_no_graph() -> None:
    with pytest.raises(PlanError, match="from a plan alone"):
        Report(prepare(Net()).report.plan).to_dot()
