"""JSON with dicts whose keys are numbers, which JSON would make texts of: ``{30: 1}`` comes back as it was.

The milestones of torch's ``MultiStepLR`` are such a dict: with texts for keys the learning rate would never fall.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["dumped", "loaded"]

# The only key of the object that stands for such a dict; its value is a list of pairs.
PAIRS = "__pairs__"


def dumped(value: Any) -> str:
    """``value`` as JSON.

    Raises:
        TypeError, ValueError: if JSON cannot hold it.

    >>> loaded(dumped({"milestones": {30: 1, 60: 1}}))
    {'milestones': {30: 1, 60: 1}}
    """
    return json.dumps(_with_pairs(value))


def loaded(text: str) -> Any:
    """What :func:`dumped` wrote, but for tuples, which are lists.

    Raises:
        ValueError: if it is no JSON.
    """
    return json.loads(text, object_hook=_without_pairs)


def _with_pairs(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_pairs(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = {key: _with_pairs(item) for key, item in value.items()}
    plain = all(isinstance(key, str) for key in items) and items.keys() != {PAIRS}
    if plain or not all(isinstance(key, str | int | float | None) for key in items):
        return items  # json refuses other keys, and says which
    return {PAIRS: [[key, item] for key, item in items.items()]}


def _without_pairs(found: dict[str, Any]) -> Any:
    return dict(found[PAIRS]) if found.keys() == {PAIRS} else found
