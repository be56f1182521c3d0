"""Merge runs of operations that the graph need not show one by one, such as a detector's post-processing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass

__all__ = ["cluster_nodes"]


def cluster_nodes(successors: Sequence[Set[int]], kinds: Sequence[Hashable]) -> tuple[int, ...]:
    """Which group each node of an acyclic graph is in, so that the graph of the groups is acyclic too.

    Two groups of one kind become one if a result goes straight from one to the other and there is no way around: any
    other way between them would lead out of the group and back into it.

    Args:
        successors: For each node the nodes that use its result, all of them later in the sequence.
        kinds: For each node what it may be grouped with; None stays alone.

    Returns:
        For each node the first node of its group.
    """
    groups = _joined_to_predecessor(successors, kinds)
    graph = _graph_of(groups, successors, kinds)
    waiting = sorted(graph.after)
    while waiting:
        group = waiting.pop()
        if group in graph.after and graph.join_next(group):
            # What was joined may be joined again, and so may what leads to it.
            first = graph.leader(group)
            waiting += [first, *(other for other in graph.before[first] if kinds[other] == kinds[first])]
    return tuple(graph.leader(group) for group in groups)


def _joined_to_predecessor(successors: Sequence[Set[int]], kinds: Sequence[Hashable]) -> list[int]:
    """Most of the work in one pass: where a node has one predecessor there is no way around."""
    groups = list(range(len(successors)))
    before: list[set[int]] = [set() for _ in successors]
    for node, users in enumerate(successors):
        if kinds[node] is not None and len(before[node]) == 1:
            (only,) = before[node]
            if kinds[only] == kinds[node]:
                groups[node] = only
        for user in users:
            before[user].add(groups[node])
    return groups


@dataclass(frozen=True, slots=True)
class _Graph:
    """The graph of the groups, each under its first node.

    Args:
        after: The groups that follow each group.
        before: The groups that lead to each group.
        last: The last node of each group.
        leaders: For each node a node of its group before it, or itself.
        kinds: The kind of each node.
    """

    after: dict[int, set[int]]
    before: dict[int, set[int]]
    last: dict[int, int]
    leaders: list[int]
    kinds: Sequence[Hashable]

    def leader(self, node: int) -> int:
        """The first node of the group that ``node`` is in."""
        while self.leaders[node] != node:
            self.leaders[node] = node = self.leaders[self.leaders[node]]
        return node

    def join_next(self, group: int) -> bool:
        """Join ``group`` and one of those that follow it; False if there is none to join."""
        if self.kinds[group] is None:
            return False
        for follower in sorted(self.after[group]):
            if self.kinds[follower] == self.kinds[group] and not self._way_around(group, follower):
                self._join(min(group, follower), max(group, follower))
                return True
        return False

    def _way_around(self, group: int, follower: int) -> bool:
        seen = {group, follower}
        stack = [other for other in self.after[group] if other != follower]
        while stack:
            other = stack.pop()
            if follower in self.after[other]:
                return True
            seen.add(other)
            # What begins after the follower has ended leads to it no more: results go forward alone.
            stack += [each for each in self.after[other] if each not in seen and each < self.last[follower]]
        return False

    def _join(self, first: int, second: int) -> None:
        for ahead, behind in ((self.after, self.before), (self.before, self.after)):
            for other in ahead.pop(second):
                behind[other].discard(second)
                if other != first:
                    behind[other].add(first)
                    ahead[first].add(other)
            ahead[first].discard(second)
        self.last[first] = max(self.last[first], self.last.pop(second))
        self.leaders[second] = first


def _graph_of(groups: Sequence[int], successors: Sequence[Set[int]], kinds: Sequence[Hashable]) -> _Graph:
    after: dict[int, set[int]] = {group: set() for group in groups}
    before: dict[int, set[int]] = {group: set() for group in groups}
    last: dict[int, int] = {}
    for node, users in enumerate(successors):
        last[groups[node]] = node
        for user in users:
            if groups[user] != groups[node]:
                after[groups[node]].add(groups[user])
                before[groups[user]].add(groups[node])
    return _Graph(after, before, last, list(range(len(successors))), kinds)
