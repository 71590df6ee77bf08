"""Rankings as sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.sentences import Words, sentence_of, strengths_of


@pytest.mark.parametrize(
    ("ranking", "unranked", "all_bad", "expected"),
    [
        ([["B"], ["D", "A"]], ["C"], False, "B > A = D, C unranked"),
        ([["A"], ["B"]], [], False, "A > B"),
        ([], ["A", "B"], True, "All bad"),
        ([["B"], ["A"]], ["D", "C"], True, "All bad, B > A, C, D unranked"),
        ([["B", "A"]], [], False, "A = B"),
    ],
)
def test_sentences(ranking: list[list[str]], unranked: list[str], all_bad: bool, expected: str) -> None:
    assert sentence_of(ranking, unranked=unranked, all_bad=all_bad) == expected


def test_an_edited_version_is_said_last() -> None:
    said = sentence_of([["B"], ["A"]], unranked=["C"], edited="B")
    assert said == "B > A, C unranked, with an edited version of B"


def test_strengths_name_both_tiers_of_a_gap() -> None:
    said = strengths_of([["B"], ["D", "A"], ["C"]], [2, None])
    assert said == ["B clearly better than A = D"]
    german = Words("Alle schlecht", "{letters} ohne Rang", strengths={3: "{better} viel besser als {worse}"})
    assert strengths_of([["A"], ["B"]], [3], words=german) == ["A viel besser als B"]
    assert sentence_of([["A"]], unranked=["B"], all_bad=True, words=german) == "Alle schlecht, A, B ohne Rang"


@given(st.permutations("ABCDEFGHI"), st.lists(st.integers(1, 3), max_size=4), st.integers(0, 3))
def test_every_letter_is_named_once(letters: list[str], sizes: list[int], rest: int) -> None:
    tiers, start = [], 0
    for size in sizes:
        tiers.append(letters[start : start + size])
        start += size
    tiers = [tier for tier in tiers if tier]
    said = sentence_of(tiers, unranked=letters[start : start + rest] if tiers else [])
    named = sorted(letters[: start + rest] if tiers else [])
    assert sorted(one for one in said.replace("unranked", "") if one.isupper()) == named
