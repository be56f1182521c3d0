"""Biases that a norm subtracts again: which of them change nothing, wherever they are used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sgdph_fx.analysis.flow import Flow
from sgdph_fx.analysis.verdicts import Judgement
from sgdph_fx.plan.entries import Hint
from sgdph_fx.rules.kinds import Conv

__all__ = ["absorbed_biases"]


def absorbed_biases(flow: Flow, calls: Iterable[tuple[str | None, Judgement]]) -> Iterator[Hint]:
    """A hint for each bias that every call which adds it loses again in a norm.

    Args:
        flow: The flow in training mode, which shows what else reads a bias.
        calls: The name of the bias that each call of a convolution in training adds, and the verdict on that call.
    """
    by_parameter: dict[int, list[tuple[str, Judgement]]] = {}
    for name, judgement in calls:
        if name is not None:
            by_parameter.setdefault(_identity(flow, name), []).append((name, judgement))
    elsewhere = set(_read_elsewhere(flow))
    for parameter, uses in by_parameter.items():
        if parameter not in elsewhere and all(judgement.absorbs_bias for _, judgement in uses):
            name, judgement = uses[0]
            message = (
                f"{judgement.norm} subtracts the mean, and with it this bias: it changes nothing, and its Hessian is "
                "rounding noise, which makes for the largest step of all; build the convolution with bias=False"
            )
            yield Hint("absorbed-bias", name, message)


def _read_elsewhere(flow: Flow) -> Iterator[int]:
    """The parameters that something else than a convolution reads."""
    for _, attributes in flow.graph.nodes(data=True):
        node = attributes["node"]
        if node.op == "get_attr" and not all(_is_convolution(flow, user.name) for user in node.users):
            yield _identity(flow, str(node.target))


def _is_convolution(flow: Flow, name: str) -> bool:
    return isinstance(flow.graph.nodes[name]["rule"], Conv)


def _identity(flow: Flow, name: str) -> int:
    return id(flow.parameter(name))
