"""What torch expects of an optimizer beside its steps: groups checked, states saved and loaded, skips counted."""

from __future__ import annotations

from collections import defaultdict
from numbers import Number
from typing import Any

from torch.optim.optimizer import Optimizer, ParamsT

from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.device_step import DeviceNumbers
from sgdph_fx.optim.hessian.estimate import HessianEstimate
from sgdph_fx.optim.hessian.loss_checks import Addresses
from sgdph_fx.optim.hyperparameters import ABSENT_MEANS, check_hyperparameters
from sgdph_fx.optim.members.layout import Layout
from sgdph_fx.optim.members.unowned import Unowned
from sgdph_fx.optim.members.validation import check_params
from sgdph_fx.optim.nonfinite import Skipped
from sgdph_fx.optim.processes.all_reduce import ProcessGroup
from sgdph_fx.optim.saving.saved_state import ALIKE, loadable
from sgdph_fx.optim.scaling import LossScale

__all__ = ["OptimizerBase"]


class OptimizerBase(Optimizer):
    """An optimizer whose state is all in ``state`` and the groups, but for what the last backward pass found.

    Args:
        params: As of any optimizer of torch.
        defaults: The hyper-parameters of groups that do not give their own.

    Raises:
        OptimizerError: for a hyper-parameter out of range, a parameter that cannot be stepped, or an ``index``
            that gives no order.
    """

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        self._begin_anew()
        self._is_complete = False
        defaults = {**defaults, "order": 1, **dict.fromkeys(ALIKE, 0)}
        check_params(params)
        check_hyperparameters(defaults, defaults, type(self).__name__)
        super().__init__(params, defaults)
        self._is_complete = True

    def _begin_anew(self) -> None:
        """Forget what belongs to one process and one step, and is in no state."""
        self._estimate: HessianEstimate | None = None
        self._differentiated: set[int] = set()
        self._witness: tuple[int, int] | None = None
        self._skipped = Skipped()
        self._loss_scale = LossScale()
        self._unowned = Unowned()
        self._addresses = Addresses()
        self._numbers: DeviceNumbers | None = None
        self._missing: NoCurvatureError | None = None
        self._kept_layout: Layout | None = None
        self._places: tuple[int, set[tuple[int, int]]] = 0, set()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients, and drop the Hessian that :meth:`backward` found along with them.

        Args:
            set_to_none: Whether gradients become None, or zeros.
        """
        super().zero_grad(set_to_none)
        self._estimate = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave; training goes on where it was, in the middle of a cycle too.

        Where both have the parameters' names, these decide which state is whose, whatever the order. Keys that
        an earlier version did not have are filled with their defaults.

        Args:
            state_dict: What :meth:`state_dict` gave; it is copied, not changed.

        Raises:
            OptimizerError: if it is another optimizer's, was saved for other parameters, with other orders or
                another variant, or holds what no training can have left. Nothing has been loaded then.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = dict(state_dict)
            state_dict = before(self, state_dict) or state_dict
        state, groups = loadable(state_dict, self.param_groups)
        # Not by super(): torch looks each tensor's parameter up in lists, which takes quadratic time.
        self.__setstate__({"state": defaultdict(dict, state), "param_groups": groups})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin_anew()
        self._process_group: ProcessGroup = getattr(self, "_process_group", None)
        self._is_complete = True
        for group in self.param_groups:
            for key, value in {**ABSENT_MEANS, **dict.fromkeys(ALIKE, 0)}.items():
                group.setdefault(key, value)

    def state_dict(self) -> dict[str, Any]:
        """As any optimizer's: plain data, which ``torch.load(weights_only=True)`` reads.

        Returns:
            ``state`` and ``param_groups``, as :class:`sgdph_fx.SGDPH` describes them; no state of a parameter that
            somebody has taken out of the groups.
        """
        self._settle()
        everything, held = self.state, {id(p) for group in self.param_groups for p in group["params"]}
        try:
            self.state = defaultdict(dict, {p: own for p, own in everything.items() if id(p) in held})
            saved = super().state_dict()
        finally:
            self.state = everything
        for group in saved["param_groups"]:
            group.update({key: value.item() for key, value in group.items() if _is_of_numpy(value)})
        return saved

    def _settle(self) -> None:
        """Bring the groups' counts up to date; the host waits for the device where it has not done so yet."""
        self._skipped.settle(self.param_groups, wait=True)
        if self._numbers is not None:
            skipped, spoiled = self._numbers.write_into(self.param_groups)
            if skipped:
                self._skipped.tell("steps_skipped")
            if spoiled:
                self._skipped.tell("refreshes_skipped")

    @property
    def steps_skipped(self) -> int:
        """How many steps were skipped because their loss or a gradient was not finite."""
        return self._count("steps_skipped")

    @property
    def refreshes_skipped(self) -> int:
        """How many Hessians were left out because they were not finite."""
        return self._count("refreshes_skipped")

    @property
    def curvature_missed(self) -> int:
        """How many refreshes had no product, because an operation has no second derivative."""
        return self._count("curvature_missed")

    @property
    def products_given_up(self) -> int:
        """How many products torch's double backward took, because a rule did not understand an operation.

        They are right, and slower; :func:`sgdph_fx.curvature.coverage` says which operation it is, and why.
        """
        return self._count("products_given_up")

    def _count(self, key: str) -> int:
        self._settle()
        count: int = self.param_groups[0][key]
        return count

    @property
    def _steps_taken(self) -> int:
        steps: int = self.param_groups[0]["step"]
        return steps

    @property
    def _known_layout(self) -> Layout:
        """The index as it was when this call began, which has compared it with the groups."""
        return self._layout() if self._kept_layout is None else self._kept_layout

    def _layout(self) -> Layout:
        """The index over the groups, made anew where somebody has put other tensors into them."""
        kept = self._kept_layout
        if kept is None or not kept.fits(self.param_groups):
            kept = self._kept_layout = Layout.of(self.param_groups)
        return kept


def _is_of_numpy(value: object) -> bool:
    """Whether it is one of NumPy's numbers, as in a table of rates, which ``torch.load`` does not take for plain."""
    return isinstance(value, Number) and hasattr(value, "item")
