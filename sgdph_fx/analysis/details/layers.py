"""The layer of each parameter, counted from the input: what layer-wise learning rates go by.

A layer is a block where the model is made of blocks, else one weight with the norms behind it. Blocks are found from
the data: between two results that *all* the data passes through lies one stretch of the model, and a stretch with
several weights is a block, or a part of one. Blocks of the same class elsewhere in the model are blocks, too.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn

from sgdph_fx.analysis.details.weight_uses import WeightUses
from sgdph_fx.analysis.flow import Flow

__all__ = ["layers_of"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layers_of(flow: Flow, uses: WeightUses, depth: Mapping[str, int]) -> dict[str, int]:
    """The layer of each parameter that the flow reads, by name, from 0 on."""
    stretches = _stretches(flow, uses, depth)
    blocks = _blocks(flow, [[uses.applied[node] for node in stretch] for stretch in stretches])
    nodes = [node for stretch in stretches for node in stretch]
    weights = Counter(around for node in nodes for around in _around(uses.applied[node]))
    units = {node: _unit(uses.applied[node], blocks, weights) for node in nodes}
    numbers = _numbered(dict.fromkeys(units.values()), blocks)
    by_place = sorted((uses.places[node], numbers[unit]) for node, unit in units.items())
    return {name: _layer(name, place, numbers, by_place) for name, place in uses.first_use.items() if numbers}


def _numbered(units: Iterable[str], blocks: set[str]) -> dict[str, int]:
    """The layer of each unit, in order.

    Where there are blocks, all before the first of them is one layer, the stem, and all behind the last is one, the
    head. A weight between two blocks, such as one that halves the map, joins the second.
    """
    paths = list(units)
    places = [at for at, path in enumerate(paths) if path in blocks]
    if not places:
        return {path: at for at, path in enumerate(paths)}
    stem = int(places[0] > 0)
    return {path: stem + bisect_left(places, at) if at >= places[0] else 0 for at, path in enumerate(paths)}


def _layer(name: str, place: int, units: Mapping[str, int], by_place: Sequence[tuple[int, int]]) -> int:
    """That of the block around a parameter, else of the last weight before its use."""
    for path in _around(name.rpartition(".")[0]):
        if path in units:
            return units[path]
    return by_place[max(bisect_right(by_place, (place, len(units))) - 1, 0)][1]


def _stretches(flow: Flow, uses: WeightUses, depth: Mapping[str, int]) -> list[list[str]]:
    """The nodes that apply weights, in order, cut where all data passes through one node.

    In the order of execution that is a node over which no edge jumps.
    """
    place = {name: at for at, name in enumerate(name for name in flow.graph.nodes if depth[name])}
    furthest = max((at for name, at in place.items() if name in uses.applied and depth[name] == 1), default=0)
    result: list[list[str]] = [[]]
    for name, at in place.items():
        if name in uses.applied:
            result[-1].append(name)
        if furthest <= at:
            result.append([])
        reached = (place[follower] for follower in flow.graph.successors(name) if follower in place)
        furthest = max(furthest, *reached, 0)
    return [stretch for stretch in result if stretch]


def _blocks(flow: Flow, stretches: Iterable[Sequence[str]]) -> set[str]:
    """The paths of the modules that are blocks: of a class that is one somewhere, or numbered as they are."""
    kinds = _block_classes(flow, stretches)
    found = {path for path, module in flow.modules.items() if path and type(module) in kinds}
    numberings = {_numbering(path) for path in found if path[-1].isdigit()}
    alike = (path for path, module in flow.modules.items() if path and _is_composite(module))
    return found | {path for path in alike if _numbering(path) in numberings}


def _numbering(path: str) -> str:
    return re.sub(r"\d+", "0", path)


def _block_classes(flow: Flow, stretches: Iterable[Sequence[str]]) -> set[type[nn.Module]]:
    """The classes of blocks, by the paths of the weights in each stretch."""
    found: set[type[nn.Module]] = set()
    siblings, open_paths = _Siblings(flow), []
    for paths in stretches:
        if len(paths) < 2:
            continue
        path = _common(paths)
        block = next(filter(siblings.is_block, _around(path)), None)
        if block is None:
            open_paths.append(path)
        else:
            found.add(type(flow.modules[block]))
    for path in open_paths:
        if not any(type(flow.modules[around]) in found for around in _around(path)):
            found.update(_repeated_inside(flow, path))
    return found


class _Siblings:
    """How many children of each class each module has, counted once."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._counts: dict[str, Counter[type[nn.Module]]] = {}

    def is_block(self, path: str) -> bool:
        """Whether a module is a numbered child beside others of its class, as the blocks of a stage are, or alone."""
        parent, _, leaf = path.rpartition(".")
        module = self._flow.modules[path]
        if not leaf[-1:].isdigit() or not _is_composite(module):
            return False
        if parent not in self._counts:
            self._counts[parent] = Counter(type(child) for child in self._flow.modules[parent].children())
        counts = self._counts[parent]
        return counts[type(module)] > 1 or counts.total() == 1


def _repeated_inside(flow: Flow, path: str) -> Iterator[type[nn.Module]]:
    """The classes of the outermost blocks inside a module; where there are none, its own."""
    waiting = [flow.modules[path]]
    found = False
    while waiting:
        children = dict(waiting.pop().named_children())
        numbered = (child for name, child in children.items() if name[-1].isdigit() and _is_composite(child))
        repeated = {kind for kind, count in Counter(map(type, numbered)).items() if count > 1}
        found = found or bool(repeated)
        yield from repeated
        waiting += [child for child in children.values() if type(child) not in repeated]
    if path and not found and _is_composite(flow.modules[path]):
        yield type(flow.modules[path])


def _is_composite(module: nn.Module) -> bool:
    return not isinstance(module, _CONTAINERS) and any(True for _ in module.children())


def _unit(path: str, blocks: set[str], weights: Mapping[str, int]) -> str:
    """The path of the outermost block around a weight, or of the largest module in which it is the only weight."""
    around = list(_around(path))
    inside = [each for each in around if each in blocks]
    alone = [each for each in around if weights[each] == 1]
    return (inside or alone or [path])[-1]


def _around(path: str) -> Iterator[str]:
    """A path and those of the modules around it, from the inside out, without the model itself."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _common(paths: Sequence[str]) -> str:
    parts = [path.split(".") for path in paths]
    common = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return ".".join(common)
