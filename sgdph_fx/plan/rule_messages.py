"""What to say about a rule that matches nothing: what is there instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from sgdph_fx.plan.config import Override
from sgdph_fx.plan.selectors import Candidate, with_parents
from sgdph_fx.plan.wording import first_few

__all__ = ["what_is_there"]


def what_is_there(
    override: Override,
    what: str,
    candidates: Sequence[Candidate],
    types: Mapping[str, Sequence[str]],
    frozen: Iterable[str],
) -> str:
    """A clause for a rule that matches no convolution, or no trainable parameter.

    Args:
        override: The rule.
        what: What it should have matched.
        candidates: All that there is of it.
        types: The classes of the model's modules by path.
        frozen: Names of the parameters that require no gradient.
    """
    if not candidates:
        return f"the model has no {what} at all"
    pattern, matches = override.pattern, override.selector.matches
    if "parameter" in what and any(matches(Candidate((name,)), types) for name in frozen):
        return "what it matches is frozen, and in no group"
    module = next((path for path in types if path and matches(Candidate((path,)), types)), None)
    if module is not None:
        return f"{module} is a {types[module][0]}, and no {what} lies in it"
    names = dict.fromkeys(name for c in candidates for own in c.names for name in with_parents(own) if name)
    near = difflib.get_close_matches(pattern, [*names, *filter(None, types)], n=1, cutoff=0.6)
    if near:
        return f"the nearest name is {near[0]!r}"
    top = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return f"no name is like it; those that begin the names of each {what} are {first_few(top, 6)}"
