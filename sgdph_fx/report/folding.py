"""Names that differ in numbers alone as one pattern: ``layer3.{0..35}.conv1``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest

__all__ = ["ALONE", "ANYWHERE", "Pattern", "fold", "skeleton", "together"]

NUMBER = r"(?:0|[1-9][0-9]{0,8})"
# A number that stands by itself: a whole part of a path, or a word of a sentence.
ALONE = re.compile(rf"(?<!\w){NUMBER}(?!\w)")
# One that may also be part of a word, as in layer3.
ANYWHERE = re.compile(rf"(?<![0-9]){NUMBER}(?![0-9])")
MOST_LISTED = 4
MOST_EXACT = 2

Box = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Names as one.

    Args:
        text: The pattern, which stands for exactly these names.
        places: Where they are in the sequence that was folded.
    """

    text: str
    places: tuple[int, ...]


def skeleton(text: str, number: re.Pattern[str] = ALONE) -> tuple[str, ...]:
    """``text`` without its numbers: what it shares with others like it.

    >>> skeleton("layer3.7.conv1"), skeleton("layer3.7.conv1", ANYWHERE)
    (('layer3.', '.conv1'), ('layer', '.', '.conv', ''))
    """
    return tuple(number.split(text))


def fold(names: Sequence[str], number: re.Pattern[str] = ALONE) -> list[Pattern]:
    """Names of one skeleton as few patterns, each of which stands for these names and no others.

    Where that takes more than two, it is one, with a star for numbers that depend on those before them.

    >>> [p.text for p in fold(["a.0.b", "a.1.b", "a.2.b"])]
    ['a.{0..2}.b']
    >>> [p.text for p in fold(["a.0.0", "a.0.1", "a.1.0", "a.1.1", "a.2.0"])]
    ['a.{0,1}.{0,1}', 'a.2.0']
    >>> [p.text for p in fold(["a.0.0", "a.1.0", "a.1.1", "a.2.0", "a.2.2"])]
    ['a.{0..2}.*']

    Args:
        names: The names, all of one skeleton.
        number: What counts as a number in them.
    """
    place_of = {_numbers(name, number): place for place, name in enumerate(names)}
    if len(place_of) < len(names):  # one name twice
        return [Pattern(name, (place,)) for place, name in enumerate(names)]
    found = []
    boxes = _boxes(sorted(place_of))
    if len(boxes) > MOST_EXACT:
        return [Pattern(_filled(names[0], _loose(list(place_of)), number), tuple(range(len(names))))]
    for box in boxes:
        places = tuple(sorted(place_of[key] for key in product(*box)))
        found.append(Pattern(_filled(names[0], [_set(values) for values in box], number), places))
    return sorted(found, key=lambda pattern: pattern.places)


def together(sentences: Sequence[str], number: re.Pattern[str] = ALONE) -> str:
    """Sentences of one skeleton as one, in which several numbers stand in braces.

    >>> together(["one number for each of 64 channels", "one number for each of 128 channels"])
    'one number for each of {64,128} channels'
    """
    columns = zip(*(_numbers(sentence, number) for sentence in sentences), strict=True)
    return _filled(sentences[0], [_set(values, MOST_LISTED) for values in columns], number)


def _numbers(text: str, number: re.Pattern[str]) -> tuple[int, ...]:
    return tuple(map(int, number.findall(text)))


def _filled(text: str, values: Sequence[str], number: re.Pattern[str]) -> str:
    """``text`` with ``values`` in place of its numbers."""
    return "".join(
        piece for pair in zip_longest(skeleton(text, number), values, fillvalue="") for piece in pair
    )


def _boxes(keys: Sequence[tuple[int, ...]]) -> list[Box]:
    """The keys as a union of products, disjoint and without any other key."""
    if not keys or not keys[0]:
        return [()] * bool(keys)
    rests: dict[int, list[tuple[int, ...]]] = {}
    for first, *rest in keys:
        rests.setdefault(first, []).append(tuple(rest))
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for first, tails in rests.items():
        alike.setdefault(tuple(tails), []).append(first)
    return [(tuple(firsts), *box) for tails, firsts in alike.items() for box in _boxes(tails)]


def _loose(keys: Sequence[tuple[int, ...]]) -> list[str]:
    """The numbers up to the first that vary, and a star for each that varies after those."""
    columns = [{*column} for column in zip(*keys, strict=True)]
    first = next(place for place, column in enumerate(columns) if len(column) > 1)
    return [_set(c) if place <= first or len(c) == 1 else "*" for place, c in enumerate(columns)]


def _set(values: Iterable[int], most: int | None = None) -> str:
    """A set of numbers: ``7``, ``{0..35}``, or ``{0,3,6..8}``; with ``most``, a longer list is cut in the middle."""
    runs: list[list[int]] = []
    for value in sorted({*values}):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    if len(runs) == len(runs[0]) == 1:
        return str(runs[0][0])
    words = [f"{run[0]}..{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
    if most is not None and len(words) > most:
        words = [*words[: most - 2], "…", words[-1]]
    return f"{{{','.join(words)}}}"
