"""Runs of operations as one: a detector's post-processing is hundreds of them, of which none matters here."""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set

__all__ = ["cluster_nodes"]


def cluster_nodes(successors: Sequence[Set[int]], kinds: Sequence[Hashable]) -> tuple[int, ...]:
    """Which group each node of an acyclic graph is in, so that the graph of the groups is acyclic too.

    Two groups of one kind become one where a result goes from one straight to the other and there is no way around:
    any other way between them would lead out of the group and back into it.

    Args:
        successors: For each node the nodes that use its result, all of them later in the sequence.
        kinds: For each node what it may be grouped with; None stays alone.

    Returns:
        For each node the first node of its group.
    """
    groups = _joined_to_predecessor(successors, kinds)
    after: dict[int, set[int]] = {group: set() for group in groups}
    for node, users in enumerate(successors):
        after[groups[node]] |= {groups[user] for user in users} - {groups[node]}
    leaders = list(range(len(successors)))
    while [group for group in sorted(after, reverse=True) if _join_next(group, after, kinds, leaders)]:
        pass  # what was joined may be joined again
    return tuple(_leader(leaders, group) for group in groups)


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


def _join_next(group: int, after: dict[int, set[int]], kinds: Sequence[Hashable], leaders: list[int]) -> bool:
    """Join ``group`` and one of those that follow it; False if there is none to join."""
    if group not in after or kinds[group] is None:
        return False
    for follower in sorted(after[group]):
        if kinds[follower] == kinds[group] and not _way_around(group, follower, after):
            _join(group, follower, after, leaders)
            return True
    return False


def _way_around(group: int, follower: int, after: dict[int, set[int]]) -> bool:
    seen = {group, follower}
    stack = [other for other in after[group] if other != follower]
    while stack:
        other = stack.pop()
        if follower in after[other]:
            return True
        seen.add(other)
        stack.extend(after[other] - seen)
    return False


def _join(one: int, other: int, after: dict[int, set[int]], leaders: list[int]) -> None:
    first, second = min(one, other), max(one, other)
    after[first] = (after[first] | after.pop(second)) - {first, second}
    for followers in after.values():
        if second in followers:
            followers.remove(second)
            followers.add(first)
    leaders[second] = first


def _leader(leaders: Sequence[int], group: int) -> int:
    while leaders[group] != group:
        group = leaders[group]
    return group
