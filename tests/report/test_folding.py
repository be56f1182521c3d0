"""Patterns of names, held to what a shell makes of their braces."""

import re
from fnmatch import fnmatchcase
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from sgdph_fx.report.folding import fold, skeleton, together


def expanded(pattern: str) -> list[str]:
    """As bash expands ``{0..2}`` and ``{1,4}``, and both in one pair of braces."""
    pieces = re.split(r"\{([^}]*)\}", pattern)
    choices = [[piece] if place % 2 == 0 else _listed(piece) for place, piece in enumerate(pieces)]
    return ["".join(choice) for choice in product(*choices)]


def _listed(inside: str) -> list[str]:
    found = []
    for word in inside.split(","):
        first, _, last = word.partition("..")
        found += [str(number) for number in range(int(first), int(last or first) + 1)]
    return found


@given(st.sets(st.tuples(st.integers(0, 12), st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=40))
def test_a_pattern_stands_for_its_names_and_an_exact_one_for_no_others(
    keys: set[tuple[int, int, int]],
) -> None:
    names = [f"stages.{a}.{b}.block.{c}.conv1" for a, b, c in keys]
    patterns = fold(names)
    for pattern in patterns:
        members = [names[place] for place in pattern.places]
        if "*" in pattern.text:
            stems = expanded(pattern.text)
            assert all(any(fnmatchcase(name, stem) for stem in stems) for name in members)
            assert all(any(fnmatchcase(name, stem) for name in members) for stem in stems)
        else:
            assert sorted(expanded(pattern.text)) == sorted(members)
    assert sorted(place for pattern in patterns for place in pattern.places) == [*range(len(names))]


def test_equal_blocks_are_one_line_and_uneven_stages_two_or_one_with_a_star() -> None:
    even = [f"layer3.{block}.conv1" for block in range(36)]
    assert [(p.text, len(p.places)) for p in fold(even)] == [("layer3.{0..35}.conv1", 36)]
    uneven = [
        f"blocks.{stage}.{block}.conv"
        for stage, blocks in ((0, 2), (1, 4), (2, 4))
        for block in range(blocks)
    ]
    assert [p.text for p in fold(uneven)] == ["blocks.0.{0,1}.conv", "blocks.{1,2}.{0..3}.conv"]
    more = [*uneven, "blocks.3.0.conv"]
    assert [(p.text, len(p.places)) for p in fold(more)] == [("blocks.{0..3}.*.conv", 11)]


def test_a_number_inside_a_word_or_with_zeros_before_it_is_no_number() -> None:
    assert skeleton("layer3.conv1.01.7") == ("layer3.conv1.01.", "")
    assert [p.text for p in fold(["w"])] == ["w"]


def test_a_name_that_looks_like_a_pattern_stays_as_it_is() -> None:
    assert [p.text for p in fold(["#.0", "#.1"])] == ["#.{0,1}"]
    assert [p.text for p in fold(["{0..3}", "{0..3}"])] == ["{0..3}", "{0..3}"]


def test_a_long_list_in_a_sentence_is_cut_in_the_middle() -> None:
    sentences = [f"each of {size} channels" for size in (16, 64, 256, 1024, 4096)]
    assert together(sentences) == "each of {16,64,…,4096} channels"
    assert together(["no number", "no number"]) == "no number"
