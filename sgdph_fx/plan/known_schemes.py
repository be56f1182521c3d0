"""The schemes that are there from the start."""

from __future__ import annotations

from collections.abc import Callable

from sgdph_fx.plan.entries import Option
from sgdph_fx.plan.schemes import Scheme, SchemeContext, SchemeRow, Value, register_scheme

__all__ = ["LAYER_DECAY", "MUON", "NO_DECAY"]

# What weight decay would pull towards zero without making the function simpler: scales, shifts, tokens, positions.
_UNDECAYED = (
    "bias",
    "norm-*",
    "gain",
    "layer-scale",
    "slope",
    "temperature",
    "state-space",
    "token",
    "position",
)


def _hyper(name: str) -> Value:
    return lambda context: context.hyper[name]


def _decayed(kinds: tuple[str, ...] = ("*",), **more: Value) -> SchemeRow:
    return SchemeRow(kinds, {"weight_decay": _hyper("weight_decay"), **more}, why="decayed")


def _is_vector(context: SchemeContext) -> bool:
    return sum(size > 1 for size in context.entry.shape) <= 1


def _undecayed(to: str = "", **more: Value) -> tuple[SchemeRow, ...]:
    options: dict[str, Value] = {"weight_decay": 0.0, **more}
    return (
        SchemeRow(_UNDECAYED, options, to, None, "not decayed"),
        SchemeRow(("other",), options, to, _is_vector, "a vector, not decayed"),
    )


NO_DECAY = Scheme("no-decay", (*_undecayed(), _decayed()), {"weight_decay": 0.01})


def _scale(context: SchemeContext) -> Option:
    """``layer_decay`` to the power of the distance from the last layer, as timm and BEiT have it."""
    layer = context.entry.layer
    distance = 0 if layer is None else context.layers - 1 - layer
    return float(context.hyper["layer_decay"] ** distance)


LAYER_DECAY = Scheme(
    "layer-decay",
    (*_undecayed(lr_scale=_scale), _decayed(lr_scale=_scale)),
    {"layer_decay": 0.75, "weight_decay": 0.05},
)


def _is_hidden_matrix(context: SchemeContext) -> bool:
    """Muon orthogonalizes matrices. Those next to the input and the output are not meant for it."""
    return context.entry.place != "first" and len(context.entry.shape) == 2


def _is_hidden_kernel(context: SchemeContext) -> bool:
    return bool(context.hyper["convolutions"]) and context.entry.place != "first"


def _of_muon(kinds: tuple[str, ...], when: Callable[[SchemeContext], bool]) -> SchemeRow:
    options = {"lr": _hyper("muon_lr"), "weight_decay": _hyper("weight_decay")}
    return SchemeRow(kinds, options, "muon", when, "hidden")


MUON = Scheme(
    "muon",
    (
        _of_muon(("linear", "attention-qkv", "recurrent"), _is_hidden_matrix),
        _of_muon(("convolution",), _is_hidden_kernel),
        *_undecayed("adamw", lr=_hyper("adamw_lr")),
        SchemeRow(
            ("*",),
            {"weight_decay": _hyper("weight_decay"), "lr": _hyper("adamw_lr")},
            "adamw",
            why="no hidden matrix",
        ),
    ),
    {"muon_lr": 0.02, "adamw_lr": 3e-4, "weight_decay": 0.01, "convolutions": False},
)

for _scheme in (NO_DECAY, LAYER_DECAY, MUON):
    register_scheme(_scheme)
