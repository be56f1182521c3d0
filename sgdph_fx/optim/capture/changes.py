"""What a recorded step has fixed: if any of that changes, the recording is of another step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from sgdph_fx.optim.batches import sharing
from sgdph_fx.optim.capture.host_values import Attributes, settings_of_torch, variables
from sgdph_fx.optim.capture.seen_values import Elements
from sgdph_fx.optim.capture.step_code import StepCode
from sgdph_fx.optim.sgdph import SGDPH
from sgdph_fx.optim.wording import listed, warn

__all__ = ["Changes", "Recorded", "parameters"]

# Rates are read on the device, counts too; everything else of a group is in the recorded kernels.
_FIXED: tuple[str, ...] = (
    *(
        "order",
        "momentum",
        "hessian_momentum",
        "weight_decay",
        "eps",
        "variant",
        "curvature",
        "probe",
        "negative_curvature",
        "refresh",
        "blocks",
        "max_preconditioner",
    ),
    *("maximize", "hessian_interval", "cycle_start", "cycles_before", "without_curvature"),
)


_CHANGES_TOLERATED = 3
_ENOUGH_SINCE = 32
_MISFITS_TOLERATED = 24

_ATTRIBUTES, _VARIABLES = "the attributes of a module", "the variables of a function"


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """What a recording is of.

    Args:
        roots: The model, and the loss function.
        optimizer: The optimizer.
        before_step: What is called before its step, if anything.
        scaler: The scaler of the loss, if there is one.
        on_gpu: Whether the step runs on another device than the CPU.
        left_behind: Module and attribute, by ``id`` and name, that the forward pass writes and does not read.
    """

    roots: tuple[Any, ...]
    optimizer: SGDPH
    before_step: object
    scaler: GradScaler | None
    on_gpu: bool
    left_behind: frozenset[tuple[int, str]] = frozenset()

    def code(self) -> StepCode:
        """What runs in the step, as it is now."""
        untried = () if self.before_step is None else (self.before_step,)
        return StepCode(self.roots, untried)

    def signature(self, code: StepCode) -> Mapping[str, object]:
        """Everything that a recording of this step depends on, by names for messages."""
        groups = self.optimizer.param_groups
        modules, params = code.modules, parameters(code, self.optimizer)
        attributes = Attributes(code.names, on_gpu=self.on_gpu)
        return {
            **{key: tuple(group[key] for group in groups) for key in _FIXED},
            "which groups have the same rates": sharing(groups),
            "the parameters of its groups": tuple(id(p) for group in groups for p in group["params"]),
            "requires_grad of a parameter": tuple(p.requires_grad for p in params),
            "the hooks of a parameter": tuple(map(_hooks, params)),
            "the training mode of a module": tuple(module.training for module in modules),
            "which modules there are": tuple(modules),
            "the parameters without curvature": self.optimizer.parameters_without_curvature,
            "where a tensor lies in memory": tuple(map(_place, self._tensors(modules, params))),
            "a setting of the scaler": _settings(self.scaler),
            "a setting of torch": settings_of_torch(),
            "the code of a function": code.codes,
            _ATTRIBUTES: tuple((type(m).__name__, self._without(attributes.of(m), m)) for m in modules),
            _VARIABLES: tuple(variables(code, on_gpu=self.on_gpu)),
        }

    def tensors(self, code: StepCode) -> tuple[Tensor, ...]:
        """Parameters, buffers, and the state of optimizer and scaler: what a step may write."""
        return self._tensors(code.modules, parameters(code, self.optimizer))

    def _tensors(self, modules: Iterable[nn.Module], params: Iterable[Tensor]) -> tuple[Tensor, ...]:
        buffers = (b for module in modules for b in module._buffers.values() if b is not None)
        return (*params, *buffers, *_state(self.optimizer), *_of_scaler(self.scaler))

    def _without(self, known: dict[str, object], module: nn.Module) -> dict[str, object]:
        for number, key in self.left_behind:
            if number == id(module):
                known.pop(key, None)
        return known


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The names of what has changed; nothing where there is nothing to compare with."""
    changed = [name for name in now if before and before[name] != now[name]]
    return [_in_detail(name, before[name], now[name]) for name in changed]


def _in_detail(name: str, before: Any, now: Any) -> str:
    if name not in (_ATTRIBUTES, _VARIABLES) or len(before) != len(now):
        return name
    (owner, old), (_, new) = next(pair for pair in zip(before, now, strict=True) if pair[0] != pair[1])
    if name == _VARIABLES:
        return f"the variable {owner}"
    key = next((key for key in {**old, **new} if old.get(key) != new.get(key)), "")
    return f"the attribute {key} of a {owner}"


def parameters(code: StepCode, optimizer: SGDPH) -> list[Tensor]:
    """All tensors that a step may leave a gradient in: the modules', the optimizers', and what else is trained."""
    of_modules = (p for module in code.modules for p in module._parameters.values() if p is not None)
    held = (p for group in optimizer.param_groups for p in group["params"])
    return list(dict.fromkeys((*of_modules, *held, *code.leaves)))


def _hooks(parameter: Any) -> object:
    found = parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None)
    return tuple(tuple(hooks) if hooks else () for hooks in found)


def _settings(scaler: GradScaler | None) -> object:
    if scaler is None:
        return None
    return (
        scaler.is_enabled(),
        scaler.get_growth_factor(),
        scaler.get_backoff_factor(),
        scaler.get_growth_interval(),
    )


def _of_scaler(scaler: GradScaler | None) -> Iterator[Tensor]:
    tensors = () if scaler is None else (scaler._scale, scaler._growth_tracker)
    yield from (t for t in tensors if t is not None)


def _state(optimizer: SGDPH) -> Iterable[Tensor]:
    for own in optimizer.state.values():
        yield from (value for value in own.values() if isinstance(value, Tensor))
    yield from optimizer._device_tensors()


def _place(tensor: Any) -> object:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _with_records(before: Any, now: Any) -> Any:
    """What was there before, with the records in it as they are now."""
    if isinstance(before, Elements):
        return now if isinstance(now, Elements) and now.is_record_after(before) else before
    if type(before) is type(now) is dict:
        return {key: _with_records(old, now[key]) if key in now else old for key, old in before.items()}
    if type(before) is type(now) is tuple and len(before) == len(now):
        return tuple(map(_with_records, before, now))
    return before


class Changes:
    """Compares each step with the one before, and says once why steps run without graphs."""

    def __init__(self) -> None:
        self._signature: Mapping[str, object] = {}
        self._in_a_row = 0
        self._since = 0
        self._misfits = 0
        self._is_told = False
        self.too_many = False
        """Whether something changes so often that graphs are of no use."""

    def note(self, now: Mapping[str, object]) -> bool:
        """Whether anything differs from the step before."""
        changed = _differences(self._signature, now)
        self._signature = now
        self._in_a_row = self._in_a_row + 1 if changed else 0
        self._since = 0 if changed else self._since + 1
        self.too_many = self._in_a_row > _CHANGES_TOLERATED or (self.too_many and self._since < _ENOUGH_SINCE)
        if self.too_many and not self._is_told:
            self._is_told = True
            warn(
                f"{listed(changed, 3)} changes at every step, so steps run without CUDA graphs until it stays the same "
                f"for {_ENOUGH_SINCE} steps: a graph holds everything but learning rates and what is in the batch. "
                "With OneCycleLR or CyclicLR pass cycle_momentum=False; pass other numbers as tensors in the batch, "
                "and write buffers in place."
            )
        return bool(changed)

    def settle(self, now: Mapping[str, object]) -> None:
        """Take what the step itself has added to lists for known: a record, of which nothing is computed."""
        self._signature = {
            key: _with_records(value, now[key]) if key in (_ATTRIBUTES, _VARIABLES) else value
            for key, value in self._signature.items()
        }

    def fit(self, misfit: str) -> bool:
        """Whether the batch fits; many in a row that do not are told once."""
        self._misfits = self._misfits + 1 if misfit else 0
        if self._misfits == _MISFITS_TOLERATED:
            warn(
                f"The last {_MISFITS_TOLERATED} batches differ from the first one, the last of them by {misfit}, so "
                "their steps ran without CUDA graphs. If batches are to be like these from now on, call `reset()`; "
                "pass numbers that change as tensors."
            )
        return not misfit
