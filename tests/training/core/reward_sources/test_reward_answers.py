"""Answers that can be checked: which text is the same, which number a response ends up with, when it is near enough."""

from fractions import Fraction

import pytest

from tests.training.core.reward_sources.episodes import episode
from training.core.errors import UsageError
from training.core.reward_sources.answers import ExactReward, NumericReward, last_number


@pytest.mark.parametrize(
    ("text", "answer", "plain", "cased"),
    [
        ("Paris", "Paris", 1, 1),
        (" \nparis\t", "Paris", 1, 0),
        ("New   York\nCity", "new york city", 1, 0),
        ("It is Paris", "Paris", 0, 0),
        ("Paris.", "Paris", 0, 0),
        ("b", ["A", "b"], 1, 1),
        ("42", 42, 1, 1),
        ("STRASSE", "straße", 1, 0),
        ("", "Paris", 0, 0),
    ],
)
def test_exact_looks_through_space_and_case_alone(text: str, answer: object, plain: float, cased: float) -> None:
    episodes = [episode(text, record={"answer": answer})]
    assert ExactReward("exact", 1.0).score(episodes) == [plain]
    assert ExactReward("exact", 1.0, case_matters=True).score(episodes) == [cased]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", "42"),
        ("first 3, then 5", "5"),
        ("-7", "-7"),
        ("x = \u22127", "-7"),
        ("+7", "7"),
        ("10-3", "3"),
        ("10 - 3 = 7", "7"),
        ("it is - 5", "-5"),
        ("f(2)-3", "3"),
        ("1,234,567.89", "123456789/100"),
        ("1,2,3", "3"),
        ("12,34", "34"),
        ("1,2345", "2345"),
        ("$1,234", "1234"),
        ("50%", "50"),
        (".5", "1/2"),
        ("0.50", "1/2"),
        ("1.2.3", "3"),
        ("1e-3", "1/1000"),
        ("2.5E+2 m", "250"),
        (r"$3 \times 10^{5}$", "300000"),
        ("3 × 10^\u22122", "3/100"),
        ("3/4", "3/4"),
        ("-3 / 4", "-3/4"),
        ("3/0", None),
        (r"\frac{3}{4}", "3/4"),
        (r"-\dfrac{1}{2}", "-1/2"),
        (r"\frac{-1}{2}", "-1/2"),
        (r"So \boxed{42}, as 6 times 7.", "42"),
        (r"\boxed{1} no, \boxed{\frac{1}{3}} of 9", "1/3"),
        (r"\boxed{x} or 4", "4"),
        (r"\boxed{5", "5"),
        ("2 + 2\n#### 4\n", "4"),
        ("#### 1\n#### 1,000", "1000"),
        ("#### none, but 3", "3"),
        ("none", None),
        ("", None),
        ("9" * 65, None),
        ("1e999999999", None),
        ("7 and 1e999999999", "7"),
    ],
)
def test_the_number_that_a_text_ends_up_with(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Fraction(number))


@pytest.mark.parametrize(
    ("text", "answer", "tolerance", "right"),
    [
        ("42", "42", None, 1),
        ("42.0", 42, None, 1),
        ("43", "42", None, 0),
        ("no idea", "42", None, 0),
        # Whole numbers are equal or they are not, however large.
        ("123456789013", "123456789012", None, 0),
        ("0.3333333", "1/3", None, 1),
        ("0.333", "1/3", None, 0),
        ("0.333", "1/3", 0.001, 1),
        ("43", "42", 1.0, 1),
        ("43.1", "42", 1.0, 0),
        ("so 1,000", "Anna pays 500 twice.\n#### 1000", None, 1),
        ("5", [4, "5"], None, 1),
        ("0.1", 0.1, 0.0, 1),
        ("-0.5", "-1/2", None, 1),
        ("0.000001", "0", None, 0),
    ],
)
def test_numbers_are_compared_exactly_or_within_a_tolerance(
    text: str, answer: object, tolerance: float | None, right: float
) -> None:
    assert NumericReward("numeric", 1.0, tolerance=tolerance).score([episode(text, record={"answer": answer})]) == [
        right
    ]


@pytest.mark.parametrize("answer", [None, [], True, [True], {"a": 1}, [None]])
def test_a_line_without_a_usable_answer_is_refused(answer: object) -> None:
    for source in (ExactReward("exact", 1.0), NumericReward("numeric", 1.0)):
        with pytest.raises(UsageError, match='"answer"'):
            source.check(episode("", record={"answer": answer}))


def test_a_number_is_asked_for_where_one_is_compared() -> None:
    ExactReward("exact", 1.0).check(episode("", record={"answer": "Paris"}))
    with pytest.raises(UsageError, match="no number"):
        NumericReward("numeric", 1.0).check(episode("", record={"answer": "Paris"}))


def test_long_texts_cost_no_more_than_they_are_long() -> None:
    # Would not end in a lifetime if a pattern went back over what it has read.
    for text in ("1," * 5_000, "1" * 30_000, "1,111" * 5_000, "1 / " * 5_000, "\\boxed{" * 5_000, "- " * 9_000):
        last_number(text)
