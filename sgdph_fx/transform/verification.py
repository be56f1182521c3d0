"""What a rewriting must not change, measured before and compared afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgdph_fx.errors import RewriteError
from sgdph_fx.plan import Plan
from sgdph_fx.plan.wording import first_few
from sgdph_fx.report import Check
from sgdph_fx.trace import ExampleInputs, eagerly, mode, runner, tensors_in, untouched
from sgdph_fx.trace.source import failing_line
from sgdph_fx.transform.filters import compose, decompose

__all__ = ["Expectation"]

_WEIGHTS = "weights computed from direction and gain"
_NOTHING = "; the outputs hold nothing to compare"
_CHANGING = "; the outputs differ from run to run, so they could not be compared"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a model gives before it is rewritten.

    Args:
        weights: The largest relative difference between a weight and what its parts give back; None if there was no
            weight with numbers to compare.
        outputs: The tensors that it returns in evaluation mode, where you gave example inputs.
        example_inputs: The inputs.
    """

    weights: float | None
    outputs: Mapping[str, Tensor] | None
    example_inputs: ExampleInputs | None

    @classmethod
    def of(cls, model: nn.Module, plan: Plan, example_inputs: ExampleInputs | None) -> Expectation:
        """Measure it; ``model`` stays as it is.

        Raises:
            RewriteError: if a weight is not computed back from its parts.
        """
        weights = _weights_difference(model, plan)
        outputs = None if example_inputs is None else _outputs_of(model, example_inputs)
        return cls(weights, outputs, example_inputs)

    def verify(self, prepared: nn.Module) -> Check | None:
        """Compare the prepared model with it.

        Returns:
            What was compared, and the largest difference; None if there was nothing to compare.

        Raises:
            RewriteError: if the prepared model does not run, or an output differs by more than rounding explains.
        """
        why = ""
        if self.outputs is not None and self.example_inputs is not None:
            difference = _outputs_difference(self.outputs, prepared, self.example_inputs)
            if difference is not None:
                return Check("outputs in evaluation mode", difference)
            is_empty = not any(tensor.numel() for tensor in self.outputs.values())
            why = _NOTHING if is_empty else _CHANGING
        return None if self.weights is None else Check(f"{_WEIGHTS}{why}", self.weights)


def _weights_difference(model: nn.Module, plan: Plan) -> float | None:
    """The largest relative difference, max |W' - W| / max |W|, of all weights to decouple.

    Raises:
        RewriteError: if one differs by more than rounding; nothing has been changed then.
    """
    worst: float | None = None
    for name, filters in plan.filters.items():
        weight = model.get_parameter(name).detach()
        if weight.is_meta or not weight.numel():
            continue
        difference = _relative(compose(*decompose(weight, filters), filters), weight)
        if not difference <= 16 * torch.finfo(weight.dtype).eps:
            raise RewriteError(
                f"{name}: direction and gain give the weight back only to {difference:.1e} (relative). "
                "Keep this convolution as it is with a rule 'keep'."
            )
        worst = max(worst or 0.0, difference)
    return worst


def _outputs_of(model: nn.Module, example_inputs: ExampleInputs) -> dict[str, Tensor]:
    """Every tensor that ``model`` returns in evaluation mode, by its place; ``model`` stays as it is."""
    with untouched(model), runner(example_inputs, model) as run, mode(model, training=False), eagerly():
        torch.manual_seed(0)  # undone on leaving: a model that draws random numbers draws the same twice
        found = tensors_in(run(model))
        return {way: _dense(tensor) for way, tensor in found.items() if not tensor.is_meta}


def _dense(tensor: Tensor) -> Tensor:
    """The numbers of ``tensor`` in memory of their own, in a layout and a dtype that can be calculated with."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_nested:
        return torch.cat([part.reshape(-1) for part in tensor.unbind()])
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.clone().resolve_conj().resolve_neg()


def _outputs_difference(
    before: Mapping[str, Tensor], prepared: nn.Module, example_inputs: ExampleInputs
) -> float | None:
    """The largest relative difference, max |y' - y| / max |y|, of all outputs; None if none can be compared.

    Raises:
        RewriteError: if the prepared model fails, returns something else, or an output differs by more than rounding
            can explain.
    """
    after = _outputs_after(prepared, example_inputs)
    if _shapes(after) == _shapes(before) and not _different(before, after):
        return _largest(before, after)
    # Inputs that are drawn anew, a clock, a counter: what the model does not repeat says nothing about the rewriting.
    again = _outputs_after(prepared, example_inputs)
    changing = set(_different(after, again)) if _shapes(again) == _shapes(after) else {*before, *after}
    before, after = ({way: t for way, t in found.items() if way not in changing} for found in (before, after))
    _require_same(before, after)
    return _largest(before, after)


def _outputs_after(prepared: nn.Module, example_inputs: ExampleInputs) -> dict[str, Tensor]:
    try:
        return _outputs_of(prepared, example_inputs)
    except Exception as error:
        raise RewriteError(
            f"The rewritten model does not run: {type(error).__name__}{failing_line(error)} ({error}). Some code "
            "reads a decoupled weight in another way than as `module.weight`. Keep such convolutions as they are with "
            "a rule 'keep'. The model is as it was."
        ) from error


def _require_same(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    shapes, expected = _shapes(after), _shapes(before)
    if shapes != expected:
        other = [f"output{way}" for way in {**expected, **shapes} if shapes.get(way) != expected.get(way)]
        raise RewriteError(
            f"The rewritten model returns other outputs: {first_few(other)}. Keep the convolutions behind them as they "
            "are with a rule 'keep'. The model is as it was."
        )
    for way, difference in _different(before, after).items():
        raise RewriteError(
            f"The rewritten model's output{way} differs by {difference:.1e} (relative), more than rounding "
            "explains: some code reads a decoupled weight in another way than as `module.weight`. Keep such "
            "convolutions as they are with a rule 'keep'. The model is as it was."
        )


def _shapes(outputs: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {way: tensor.shape for way, tensor in outputs.items()}


def _different(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """The relative difference of each output where it is more than rounding."""
    found = {way: _relative(after[way], tensor) for way, tensor in before.items()}
    return {way: d for way, d in found.items() if not d <= _tolerance(before[way])}


def _largest(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float | None:
    compared = [_relative(after[way], tensor) for way, tensor in before.items() if tensor.numel()]
    return max(compared, default=None)


def _tolerance(tensor: Tensor) -> float:
    is_exact = not (tensor.is_floating_point() or tensor.is_complex())
    return 0.0 if is_exact else float(torch.finfo(tensor.dtype).eps) ** 0.5


def _relative(after: Tensor, before: Tensor) -> float:
    """Max |y' - y| / max |y|, where places that are not finite have to be the same."""
    if not before.numel() or (after.dtype == before.dtype and torch.equal(after, before)):
        return 0.0
    same = (after == before) | (after.isnan() & before.isnan())
    if not (before.is_floating_point() or before.is_complex()):
        after, before = after.double(), before.double()
    difference = torch.where(same, 0, (after - before).abs()).max()
    size = before.abs().nan_to_num(0.0, 0.0, 0.0).max().clamp_min(torch.finfo(before.dtype).tiny)
    return float(difference / size)
