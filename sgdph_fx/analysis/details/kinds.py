"""The finer kind of each parameter: what optimizers, weight decay and learning rates are chosen by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx, nn

from sgdph_fx.analysis.details.weight_uses import parameter_behind
from sgdph_fx.analysis.flow import Flow
from sgdph_fx.plan.entries import Kind, ParameterEntry
from sgdph_fx.rules.calls import CONCATENATIONS, operation_name
from sgdph_fx.rules.kinds import Conv, Linear
from sgdph_fx.rules.modules import rule_of

__all__ = ["Subject", "kind_of", "uses_by_name"]

_BY_ROLE: Mapping[str, Kind] = {
    "norm.weight": "norm-scale",
    "norm.bias": "norm-shift",
    "gain": "gain",
    "direction": "direction",
    "bias": "bias",
    "layer_scale": "layer-scale",
    "activation": "slope",
}
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# How the projection to queries, keys and values in one is called: timm, GPT-2, BLOOM, flash-attention, x-transformers.
_FUSED = re.compile(
    r"(^|[._])(qkv|wqkv|w_qkv|to_qkv|qkv_proj|in_proj_qkv|query_key_value|c_attn|to_kv|kv)$", re.IGNORECASE
)
_ROUTER = re.compile(r"(^|[._])(gate|router|gating|switch|classifier)$", re.IGNORECASE)
_POSITION = re.compile(
    r"pos(ition|itional)?(_|$|s$|emb|enc)|(^|[._])(wpe|rel_pos\w*|relative_(position|attention)\w*|attention_bias(es)?$)",
    re.IGNORECASE,
)
_EXPERTS = re.compile(r"(^|[._])experts?($|[._])", re.IGNORECASE)
_TOKEN = re.compile(
    r"(^|_)(cls|class|reg|register|dist|distillation|mask)_?(tokens?|embedding)$", re.IGNORECASE
)
_TEMPERATURE = re.compile(r"(^|_)(logit_scale|temperature|temp|tau)$", re.IGNORECASE)
_JOINS = CONCATENATIONS | {"stack"}
_PRODUCTS = frozenset({"matmul", "bmm", "mm", "einsum", "baddbmm"})


@dataclass(frozen=True, slots=True)
class Subject:
    """One parameter, with what its kind can be told from.

    Args:
        entry: Its entry.
        name: Its name in the model as it is: of a direction or a gain, that of the weight.
        owner: The module that owns it.
        names: All names that it goes by, each with the module that owns it there.
        uses: The operations that read it by itself, and not inside its module.
        last: Whether what it makes becomes the model's output.
    """

    entry: ParameterEntry
    name: str
    owner: nn.Module
    names: Sequence[tuple[str, nn.Module]]
    uses: Sequence[fx.Node]
    last: bool

    @property
    def path(self) -> str:
        """Path of the module that owns it."""
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        """Its name in the module that owns it."""
        return self.name.rpartition(".")[2]


def uses_by_name(flows: Sequence[Flow]) -> dict[str, list[fx.Node]]:
    """The operations that read each parameter by itself, through views and casts, by its name."""
    found: dict[str, list[fx.Node]] = {}
    for flow in flows:
        for _, attributes in flow.graph.nodes(data=True):
            node: fx.Node = attributes["node"]
            for name in _read_by(flow, node):
                found.setdefault(name, []).append(node)
    return found


def _read_by(flow: Flow, node: fx.Node) -> Iterator[str]:
    for operand in node.all_input_nodes:
        name = parameter_behind(flow, operand)
        if name is not None and parameter_behind(flow, node) is None:
            yield name


def kind_of(subject: Subject, modules: Mapping[str, nn.Module]) -> Kind:
    """The kind of a parameter; the first of the rules below that fits."""
    entry, owner = subject.entry, subject.owner
    if subject.leaf in ("A_log", "D") and isinstance(getattr(owner, "A_log", None), nn.Parameter):
        return "state-space"
    if entry.role in _BY_ROLE:
        return _BY_ROLE[entry.role]
    if any(isinstance(other, _EMBEDDINGS) for _, other in subject.names):
        return _embedding(subject)
    if entry.role == "weight":
        return _weight(subject, modules)
    return _other(subject)


def _embedding(subject: Subject) -> Kind:
    if any(not isinstance(other, _EMBEDDINGS) for _, other in subject.names):
        return "tied-embedding"
    return "position" if _POSITION.search(subject.path.rpartition(".")[2]) else "embedding"


def _weight(subject: Subject, modules: Mapping[str, nn.Module]) -> Kind:
    rule = rule_of(subject.owner)
    if isinstance(subject.owner, nn.RNNBase | nn.RNNCellBase):
        return "recurrent"
    if isinstance(rule, Conv) or (not isinstance(rule, Linear) and _is_convolved(subject.uses)):
        return "head" if subject.last else "convolution"
    if _is_router(subject, modules):
        return "router"
    if subject.leaf == "in_proj_weight" or _FUSED.search(subject.path):
        return "attention-qkv"
    if subject.last:
        return "head"
    return "experts" if len(subject.entry.shape) > 2 and _EXPERTS.search(subject.name) else "linear"


def _is_convolved(uses: Sequence[fx.Node]) -> bool:
    return any("conv" in operation_name(use) for use in uses)


def _is_router(subject: Subject, modules: Mapping[str, nn.Module]) -> bool:
    """A layer that chooses among experts, which stand beside it."""
    if not _ROUTER.search(subject.path) and not _ROUTER.search(subject.path.rpartition(".")[0]):
        return False
    around = subject.path
    for _ in range(2):
        around = around.rpartition(".")[0]
        if any(_EXPERTS.search(name) for name, _ in modules[around].named_children()):
            return True
    return False


def _other(subject: Subject) -> Kind:
    """By what the operations that read it do with it."""
    names = {operation_name(use) for use in subject.uses if use.op != "call_module"}
    shape = subject.entry.shape
    if _TOKEN.search(subject.leaf):
        return "token"
    if _POSITION.search(subject.leaf):
        return "position"
    if _TEMPERATURE.search(subject.leaf):
        return "temperature"
    as_data = any(use.op == "call_module" for use in subject.uses)
    if subject.leaf in ("bias_k", "bias_v") or names & _JOINS or as_data:
        return "token"
    if len(shape) > 2 and _EXPERTS.search(subject.name):
        return "experts"
    if names & _PRODUCTS:
        return "experts" if len(shape) > 2 and shape[0] > 1 else "linear"
    if names & {"mul", "div"} and sum(size > 1 for size in shape) <= 1:
        return "temperature"
    if names & {"add"} and len(shape) > 1:
        return "position"
    return "other"
