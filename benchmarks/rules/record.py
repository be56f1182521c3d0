"""What one model's operations are: a line of the log."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.autograd.graph import Node

from benchmarks.coverage.sample import Sample
from benchmarks.coverage.state import stirred
from benchmarks.rules.above import loss_of, operations_above, second_order
from benchmarks.rules.price import price_of
from sgdph_fx.curvature.custom_functions import full_name
from sgdph_fx.curvature.forward_over_reverse.fallback import FALLBACK, require_known_kind
from sgdph_fx.curvature.forward_over_reverse.registry import rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import GiveUp
from sgdph_fx.errors import NoCurvatureError

__all__ = ["Found", "Record", "read", "record_of", "written"]

# Of each kind in a model so many are timed; the rest only counted.
_TIMED = 2


@dataclass(slots=True)
class Found:
    """One kind of operation in one model.

    Args:
        count: How many there are.
        own_rule: Of these, how many a rule of its own takes.
        seconds: What the rule takes on those that were timed.
        plain: What their own backward takes.
        refused: Why there is no second derivative, if there is none.
    """

    count: int = 0
    own_rule: int = 0
    seconds: float = 0.0
    plain: float = 0.0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One model.

    Args:
        zoo, model: Which.
        operations: Those above a second-order parameter, by the name of their node.
        parameters: How many second-order parameters it has.
        failed: Why the model was not read, if it was not.
    """

    zoo: str
    model: str
    operations: dict[str, Found] = field(default_factory=dict)
    parameters: int = 0
    failed: str = ""


def record_of(zoo: str, model: str, build: Callable[[int], Sample]) -> Record:
    """Run one model forward and find out what lies above its second-order parameters."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    try:
        sample = stirred(build(2))
        prepared, parameters = second_order(sample)
        nodes = operations_above(loss_of(prepared, sample), parameters)
        return Record(zoo, model, _found(nodes), len(parameters))
    except Exception as error:
        return Record(zoo, model, failed=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")


def _found(nodes: dict[Node, tuple[bool, ...]]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for node, active in nodes.items():
        name = type(node).__name__ if callable(node) else full_name(node)
        kind = found.setdefault(name, Found())
        kind.count += 1
        rule = rule_of(node)
        kind.own_rule += rule is not FALLBACK
        if kind.count > _TIMED or kind.refused:
            continue
        try:
            if rule is FALLBACK:
                require_known_kind(node)
            seconds, plain = price_of(node, rule, active)
        except (GiveUp, NoCurvatureError) as error:
            kind.refused = str(error).splitlines()[0]
        else:
            kind.seconds += seconds
            kind.plain += plain
    return found


def read(log: Path) -> Iterator[Record]:
    """Read the records of a log."""
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        row = json.loads(line)
        row["operations"] = {name: Found(**each) for name, each in row["operations"].items()}
        yield Record(**row)


def written(record: Record) -> str:
    """Write a record as a line."""
    return json.dumps(asdict(record))
