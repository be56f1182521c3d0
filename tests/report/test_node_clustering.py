"""Groups of a random acyclic graph, held to what networkx says of their quotient."""

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from sgdph_fx.report.node_clustering import cluster_nodes


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[set[int]], list[str | None]]:
    size = draw(st.integers(1, 12))
    kinds = draw(st.lists(st.sampled_from([None, "a", "b"]), min_size=size, max_size=size))
    successors = [draw(st.sets(st.integers(node + 1, size))) - {size} for node in range(size)]
    return successors, kinds


@given(graphs())
def test_groups_are_of_one_kind_and_connected_and_never_close_a_cycle(
    graph: tuple[list[set[int]], list[str | None]],
) -> None:
    successors, kinds = graph
    groups = cluster_nodes(successors, kinds)
    edges = [(node, user) for node, users in enumerate(successors) for user in users]
    whole = nx.DiGraph(edges)
    whole.add_nodes_from(range(len(successors)))
    for first in set(groups):
        members = [node for node, group in enumerate(groups) if group == first]
        assert first == members[0]
        assert {kinds[node] for node in members} == {kinds[first]}
        assert len(members) == 1 or kinds[first] is not None
        assert nx.is_weakly_connected(whole.subgraph(members))
    quotient = nx.DiGraph((groups[a], groups[b]) for a, b in edges if groups[a] != groups[b])
    assert nx.is_directed_acyclic_graph(quotient)


def test_a_chain_becomes_one_and_a_way_around_keeps_two_apart() -> None:
    assert cluster_nodes([{1}, {2}, set()], ["a"] * 3) == (0, 0, 0)
    # 0 → 2 directly and by 1, which is of another kind: one group of 0 and 2 would feed 1 and be fed by it.
    assert cluster_nodes([{1, 2}, {2}, set()], ["a", None, "a"]) == (0, 1, 2)
    # Without that detour, two branches that meet again are one.
    assert cluster_nodes([{1, 2}, {3}, {3}, set()], ["a"] * 4) == (0, 0, 0, 0)
