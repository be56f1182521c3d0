"""What torch expects of an optimizer beside its steps: groups checked, states saved and loaded, skips counted."""

from __future__ import annotations

from typing import Any

from torch.optim.optimizer import Optimizer, ParamsT

from sgdph_fx.optim.all_reduce import ProcessGroup
from sgdph_fx.optim.hessian_estimate import HessianEstimate
from sgdph_fx.optim.nonfinite import COUNTERS, Skipped
from sgdph_fx.optim.validation import check_group, check_hyperparameters, check_is_group, check_saved_groups

__all__ = ["OptimizerBase"]

_ALIKE = ("step", *COUNTERS)


class OptimizerBase(Optimizer):
    """An optimizer whose state is all in ``state`` and the groups, but for what the last backward pass found.

    Args:
        params: As of any optimizer of torch.
        defaults: The hyper-parameters of groups that do not give their own.

    Raises:
        OptimizerError: for a hyper-parameter out of range, a sparse or complex parameter, or an ``index``
            that gives no order.
    """

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        self._pending: HessianEstimate | None = None
        self._skipped = Skipped()
        defaults = {**defaults, "order": 1, **dict.fromkeys(_ALIKE, 0)}
        check_hyperparameters(defaults, defaults, type(self).__name__)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its second-order parameters join the Hessian cycle, which then takes more steps.

        Raises:
            OptimizerError: as the constructor; the optimizer is left as it was.
        """
        number = len(self.param_groups)
        check_is_group(param_group, number)
        common = self.param_groups[0] if number else self.defaults
        values = {**self.defaults, **param_group, **{key: common[key] for key in _ALIKE}}
        check_hyperparameters(values, common, f"param_groups[{number}]")
        super().add_param_group(values)
        try:
            check_group(values, number, self.param_groups[:-1])
        except BaseException:
            del self.param_groups[-1]
            raise

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients, and drop the Hessian that :meth:`backward` found along with them."""
        super().zero_grad(set_to_none)
        self._pending = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave; training goes on where it was, in the middle of a cycle too.

        Raises:
            OptimizerError: if it is another optimizer's, or was saved with other orders or another variant.
        """
        check_saved_groups(state_dict["param_groups"], self.param_groups)
        super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # States of before there were counters have none.
        for group in self.param_groups:
            for key in COUNTERS:
                group.setdefault(key, 0)
        self._pending = None
        self._skipped = Skipped()
        self._process_group: ProcessGroup = getattr(self, "_process_group", None)

    def state_dict(self) -> dict[str, Any]:
        """As any optimizer's: plain data, which ``torch.load(weights_only=True)`` reads."""
        self._skipped.settle(self.param_groups, wait=True)
        return super().state_dict()

    @property
    def steps_skipped(self) -> int:
        """How many steps were skipped because their loss was not finite."""
        return self._count("steps_skipped")

    @property
    def refreshes_skipped(self) -> int:
        """How many Hessians were left out because they were not finite."""
        return self._count("refreshes_skipped")

    def _count(self, key: str) -> int:
        self._skipped.settle(self.param_groups, wait=True)
        count: int = self.param_groups[0][key]
        return count

    @property
    def _steps_taken(self) -> int:
        steps: int = self.param_groups[0]["step"]
        return steps
