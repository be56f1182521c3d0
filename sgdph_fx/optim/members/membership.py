"""Who belongs to an optimizer: groups added later, parameters that thaw, and warnings about what looks forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim.optimizer import ParamsT

from sgdph_fx.optim.base import OptimizerBase
from sgdph_fx.optim.hessian.estimators import AFFINE
from sgdph_fx.optim.hyperparameters import COMMON, check_hyperparameters
from sgdph_fx.optim.members.layout import Layout, plain_name
from sgdph_fx.optim.members.thaw import fold, groups_to_add, places_in, remembered
from sgdph_fx.optim.members.validation import check_group, check_is_group, with_agreeing_names
from sgdph_fx.optim.saving.saved_state import ALIKE
from sgdph_fx.optim.wording import listed, warn

__all__ = ["Membership"]


class Membership(OptimizerBase):
    """An optimizer that parameters can join.

    Args:
        params: As of any optimizer of torch.
        defaults: The hyper-parameters of groups that do not give their own.
    """

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self._check_pairs()
        self._warn_of_no_pairs()
        self._warn_of_plain_sgd()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its second-order parameters join the Hessian cycle, which then takes more steps.

        If the earlier groups have names and this one has none, it gets names made of its number; if they have none,
        its names are left out.

        Args:
            param_group: A dict with ``params``, and any of the keys that :class:`sgdph_fx.SGDPH` lists for groups.

        Raises:
            OptimizerError: as the constructor; the optimizer is left as it was.
        """
        number = len(self.param_groups)
        check_is_group(param_group, number)
        common = self.param_groups[0] if number else self.defaults
        values = {**self.defaults, **{key: common[key] for key in COMMON}, **param_group}
        values |= {key: common[key] for key in ALIKE}
        values.pop("cycles_missed", None)  # of another optimizer's cycles, if its groups are passed
        check_hyperparameters(values, common, f"param_groups[{number}]")
        with_agreeing_names(values, number, self.param_groups)
        before = self._layout() if values["order"] == 2 and common["step"] else None
        super().add_param_group(values)
        try:
            check_group(values, number, self._places_taken(number))
            if self._is_complete:
                self._check_pairs()
        except BaseException:
            del self.param_groups[-1]
            raise
        if before is not None:
            self._begin_longer_cycle(before, values)
        if self._is_complete and "order" not in param_group:
            self._warn_of_channel_wise(values, number)

    def thaw(self, groups: Iterable[Mapping[str, Any]], **options: Any) -> tuple[str, ...]:
        """Take in parameters that have become trainable since the optimizer was made.

        Args:
            groups: The model's groups as they are now: ``sgdph_fx.param_groups(model, example_inputs)``, called
                after ``requires_grad_(True)``. They say each parameter's order, role and place; those that the
                optimizer holds already are left as they are.
            options: Hyper-parameters for the new parameters, in groups of their own: ``lr=1e-4``, say; learning-rate
                schedulers have to be made anew then. Without any, they join the group of the same order and role,
                or else of the same order, with whatever a scheduler has made of it.

        Returns:
            The names of the parameters that joined. Second-order ones take their turn in the Hessian cycle, in
            registration order, and step with the factor of an average that has just begun.

        Raises:
            OptimizerError: if ``groups`` are not such groups, or hold what cannot be stepped; nothing has changed then.

        A state that is saved afterwards is loaded by an optimizer that has thawed the same parameters.
        """
        given = list(groups)
        before = remembered(self.param_groups)
        joined: list[str] = []
        try:
            for group in groups_to_add(given, self.param_groups, self._layout(), options):
                self.add_param_group(group)
                joined.extend(group["param_names"])
                if not options:
                    fold(self.param_groups)
            places = places_in(given, self.param_groups) if joined else []
        except BaseException:
            self.param_groups[:] = before
            raise
        for held, index in zip(self.param_groups, places, strict=False):
            held["index"] = index
        return tuple(joined)

    def _check_pairs(self) -> None:
        """Find the pairs of scale and shift now, so that what does not go together is refused before training."""
        if self.param_groups and self.param_groups[0]["blocks"] == AFFINE:
            self._layout()

    def _places_taken(self, number: int) -> set[tuple[int, int]]:
        """Order and place of the parameters in the first ``number`` groups."""
        known, taken = self._places  # so that many groups are read once while the optimizer is made
        if self._is_complete:  # places may have been given back since, or another order to all
            known, taken = 0, set()
        for group in self.param_groups[known:number]:
            taken.update((group["order"], place) for place in group.get("index", ()))
        self._places = number, taken
        return taken

    def _begin_longer_cycle(self, before: Layout, joined: dict[str, Any]) -> None:
        """Keep count of cycles as second-order parameters join: of the old ones' as they were, of the new from 1."""
        step, count = self._steps_taken, self.param_groups[0]
        done = 0
        if before.schedule.cycle:
            done = before.schedule.cycles_begun(step, count["cycle_start"], count["cycles_before"])
            done -= 0 if before.schedule.refreshes_all else 1
        for group in self.param_groups:
            group["cycle_start"], group["cycles_before"] = step, done
        joined["cycles_missed"] = [done] * len(joined["params"])

    def _warn_of_no_pairs(self) -> None:
        orders = {group["order"] for group in self.param_groups if group["params"]}
        if 2 in orders and self.param_groups[0]["blocks"] == AFFINE and not self._layout().schedule.pairs:
            warn(
                'blocks="affine" found no scale and shift of the same channels among the parameters of order 2, so '
                "each steps by its diagonal. They are known by their names, such as `X.weight` and `X.bias` or "
                "`X.gain` and `X.bias`."
            )

    def _warn_of_plain_sgd(self) -> None:
        orders = {group["order"] for group in self.param_groups if group["params"]}
        if 2 in orders or not any(p.dim() == 1 for group in self.param_groups for p in group["params"]):
            return
        warn(
            "No parameter of this SGDPH has order 2, so it trains plain SGD with momentum, although some look "
            "channel-wise. Build it from the groups that `prepare` returns, or from `sgdph_fx.param_groups(model)`: "
            "they say which parameters are second-order."
        )

    def _warn_of_channel_wise(self, group: dict[str, Any], number: int) -> None:
        names = [plain_name(group, number, i) for i, p in enumerate(group["params"]) if p.dim() == 1]
        if names:
            warn(
                f"The added group does not say its order, so all of it steps as first-order; {listed(names, 3)} look "
                "channel-wise. Add a group with order=2 for those, or call "
                "`optimizer.thaw(sgdph_fx.param_groups(model, example_inputs))`, which knows them."
            )
