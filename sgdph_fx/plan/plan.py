"""The whole decision about one model, as data: JSON in, JSON out.

A :class:`Plan` is what :func:`sgdph_fx.analyze` returns and what everything after it reads: the
rewriting, the parameter groups, the report. It holds no tensor and no module, so it can be reviewed,
kept beside the code, and applied to a fresh instance of the same model without tracing again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any

from torch import Tensor, nn

from sgdph_fx.errors import PlanFormatError, PlanMismatchError
from sgdph_fx.plan.consistency import contradictions
from sgdph_fx.plan.entries import ConvolutionEntry, Hint, Kind, ParameterEntry, Policy, Way
from sgdph_fx.plan.fitting import misfits, parts_of
from sgdph_fx.plan.state_dicts import plain_state_dict
from sgdph_fx.plan.typed import FormatProblem, shown, typed
from sgdph_fx.transform.decouple import decouple
from sgdph_fx.transform.filters import Filters

__all__ = ["Plan"]

VERSION = 1
_LISTS = ("convolutions", "parameters", "hints")
# Keys that earlier releases did not write, with the value that leaves them out.
_ADDED: Mapping[str, object] = {
    "options": {},
    "kind": "",
    "place": "",
    "fan_in": None,
    "fan_out": None,
    "layer": None,
    "layers": None,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole decision about one model.

    Args:
        model: Qualified name of the model's class.
        policy: The policy that it was decided under.
        way: How the model was read: ``"symbolic"`` tracing or a ``"recorded"`` run.
        convolutions: An entry for each convolution, in the order of ``named_modules()``.
        parameters: An entry for each trainable parameter of the prepared model, in the order of its
            ``named_parameters()``; this is the order in which Hessians are refreshed.
        frozen: Names of the parameters that require no gradient; they are in no group.
        hints: What is not wrong, but worth knowing.
        layers: How many layers the model has, those included whose parameters are all frozen; None if nobody counted
            them, as in plans of earlier releases.
    """

    model: str
    policy: Policy
    way: Way
    convolutions: tuple[ConvolutionEntry, ...]
    parameters: tuple[ParameterEntry, ...]
    frozen: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = field(default=())
    layers: int | None = None

    @property
    def bare(self) -> tuple[ConvolutionEntry, ...]:
        """The convolutions that no norm follows."""
        return tuple(c for c in self.convolutions if c.verdict == "bare")

    @property
    def decoupled(self) -> tuple[ConvolutionEntry, ...]:
        """The convolutions that are rewritten into direction and gain."""
        return tuple(c for c in self.convolutions if c.decouple)

    @property
    def second_order(self) -> tuple[ParameterEntry, ...]:
        """The parameters that get Hessian treatment; their number is M, the steps of one Hessian cycle."""
        return tuple(p for p in self.parameters if p.order == 2)

    def to_json(self) -> str:
        """The plan as indented JSON text, stable from run to run, fit for review."""
        data: dict[str, object] = {"version": VERSION}
        for part in fields(self):
            value = getattr(self, part.name)
            if not _is_left_out(part.name, value):
                data[part.name] = list(map(_record, value)) if part.name in _LISTS else value
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what :meth:`to_json` wrote.

        Every value is checked before there is a plan: its type, its range, and that the entries agree with each
        other. Plans of earlier releases lack keys that were added later, and load.

        Args:
            text: The JSON text.

        Raises:
            PlanFormatError: if the text is no JSON, no plan, of another version, or contradicts itself; the
                message says where.

        Example:
            >>> from sgdph_fx import analyze
            >>> plan = analyze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
            >>> Plan.from_json(plan.to_json()) == plan
            True
        """
        data = _loaded(text)
        if isinstance(data, dict) and "plan" in data and "headline" in data:
            raise PlanFormatError(
                "This is a report, not a plan; its plan is under the key 'plan': read that part, or use the "
                "`plan.json` beside it."
            )
        version = data.pop("version", None) if isinstance(data, dict) else None
        if version != VERSION or isinstance(version, bool):
            raise PlanFormatError(
                f"This is no plan of version {VERSION}, the one that this sgdph-fx reads; make it again "
                "with `analyze(model).to_json()` or `sgdph-convert --output`."
            )
        try:
            plan: Plan = typed(data, cls, "")
        except FormatProblem as error:
            raise PlanFormatError(f"This plan is damaged: {error}. Make it again.") from error
        require_consistent(plan)
        return plan

    def apply(self, model: nn.Module, inplace: bool = False) -> nn.Module:
        """Rewrite ``model`` as planned, without tracing it.

        Args:
            model: An unprepared instance of the model that the plan was made for.
            inplace: Rewrite ``model`` itself instead of a deep copy.

        Returns:
            The prepared model, of the same class as ``model``.

        Raises:
            PlanFormatError: if the plan contradicts itself, which one that was read or analyzed does not.
            PlanMismatchError: if the names, shapes or trainability of the model's parameters, or the filters of
                its convolutions, are not those of the plan; the message lists the differences.
            ModelError: as :func:`sgdph_fx.prepare`. In every case the model is left as it was.
        """
        require_consistent(self)
        if not isinstance(model, nn.Module):
            raise PlanMismatchError(
                f"A plan is applied to a torch.nn.Module; this is {type(model).__name__}."
            )
        differences = list(misfits(self, model))
        if differences:
            raise PlanMismatchError(
                f"This plan was made for another model than this {type(model).__name__}: "
                f"{'; '.join(differences[:5])}{'; …' if len(differences) > 5 else ''}. "
                "Make a new plan with `analyze(model)`; the model is as it was."
            )
        return decouple(model, self.filters, inplace=inplace)

    @property
    def filters(self) -> dict[str, Filters]:
        """How the filters lie in each weight that is decoupled, by its name."""
        return {entry.weight: Filters(entry.transposed, entry.groups) for entry in self.decoupled}

    def restore_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint of the prepared model as one of the plain model.

        Args:
            state_dict: ``state_dict()`` of the prepared model, whole.

        Returns:
            The same tensors in the same order, but with each direction and gain made one weight again.

        Raises:
            PlanMismatchError: if it lacks a direction or a gain, or a shape is not the planned one.
        """
        return plain_state_dict(self, state_dict)

    def without_rewriting(self) -> Plan:
        """The plan for the model as it stands: each weight that would be decoupled is first-order instead."""
        weights, gains = parts_of(self.filters)
        parameters = tuple(
            _as_weight(entry, weights[entry.name]) if entry.name in weights else entry
            for entry in self.parameters
            if entry.name not in gains
        )
        convolutions = tuple(replace(entry, decouple=False) for entry in self.convolutions)
        return replace(self, convolutions=convolutions, parameters=parameters)


def _as_weight(entry: ParameterEntry, name: str) -> ParameterEntry:
    """The entry of a direction as that of the weight that it would replace."""
    kind: Kind = "head" if entry.place == "last" else "linear" if len(entry.shape) == 2 else "convolution"
    reason = "first-order: not decoupled"
    return replace(entry, name=name, role="weight", reason=reason, kind=kind if entry.kind else "")


def _record(entry: ConvolutionEntry | ParameterEntry | Hint) -> dict[str, object]:
    """An entry as JSON's object; its values are plain already, so that none is copied."""
    values = {part.name: getattr(entry, part.name) for part in fields(entry)}
    if not isinstance(entry, ParameterEntry):
        return values
    return {name: value for name, value in values.items() if not _is_left_out(name, value)}


def _is_left_out(name: str, value: object) -> bool:
    return name in _ADDED and value == _ADDED[name]


def require_consistent(plan: Plan) -> None:
    """Refuse a plan whose entries contradict each other.

    Raises:
        PlanFormatError: with what contradicts what.
    """
    found = list(islice(contradictions(plan), 3))
    if found:
        raise PlanFormatError(f"This plan contradicts itself: {'; '.join(found)}. Make it again.")


def _loaded(text: str) -> Any:
    """The JSON value in ``text``, whatever the text is."""
    if not isinstance(text, str):
        raise PlanFormatError(
            f"A plan is read from its JSON text; this is {type(text).__name__}. Pass `path.read_text()`."
        )
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:  # too deep, or a number of too many digits
        raise PlanFormatError(f"This is no plan: not valid JSON ({_short(error)}).") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Of two equal keys, as a merge may leave them, Python would take the second without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise FormatProblem(f"the key {shown(twice)} stands twice in one object")
    return found


def _short(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error).partition(";")[0]
