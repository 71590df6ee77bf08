"""The form of a response: patterns, which cannot hang training, and thinking before an answer."""

import pytest

from tests.training.core.reward_sources.episodes import episode
from training.core.errors import UsageError
from training.core.records import Response
from training.core.reward_sources.episodes import ScoreFailure
from training.core.reward_sources.patterns import FormatReward, RegexReward
from training.core.thinking import is_opened, split
from training.core.tokens import shown_text


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("b+", "abbc", 1),
        (r"\Ab+\Z", "abbc", 0),
        (r"\Ab+\Z", "bb", 1),
        ("(?i)PARIS", "in paris", 1),
        ("PARIS", "in paris", 0),
        ("a.c", "a\nc", 0),
        ("(?s)a.c", "a\nc", 1),
    ],
)
def test_a_pattern_is_looked_for_anywhere_in_the_answer(pattern: str, text: str, found: float) -> None:
    assert RegexReward("regex", 1.0, pattern).score([episode(text, thinking="abbc PARIS")]) == [found]


def test_a_bad_pattern_is_refused_before_training() -> None:
    with pytest.raises(UsageError, match="no regular expression"):
        RegexReward("regex", 1.0, "(a")


def test_a_pattern_that_takes_forever_is_a_failure_and_no_score() -> None:
    source = RegexReward("regex", 1.0, "(a|aa)+$", seconds=0.05)
    with pytest.raises(ScoreFailure) as failure:
        source.score([episode("a"), episode("a" * 60 + "!")])
    assert failure.value.place == 1
    assert "takes more than" in failure.value.reason


@pytest.mark.parametrize(
    ("sampled", "formed"),
    [
        ("<think>two and two</think>4", 1),
        ("\n<think>\ntwo\n</think>\n\n4", 1),
        ("4", 0),
        ("<think>two</think>", 0),
        ("<think>two</think> \n", 0),
        ("<think> </think>4", 0),
        ("<think>two 4", 0),
        ("So <think>two</think>4", 0),
        ("</think>4<think>", 0),
        ("<think>two</think>4</think>", 0),
        ("<think>two<think>three</think>4", 0),
        ("<think>two</think><think>three</think>4", 0),
    ],
)
def test_one_thinking_then_an_answer(sampled: str, formed: float) -> None:
    thinking, answer = split(sampled)
    assert FormatReward("format", 1.0).score([episode(answer, thinking=thinking)]) == [formed]


@pytest.mark.parametrize(
    ("text", "opened", "parts"),
    [
        ("four", False, (None, "four")),
        (" four ", False, (None, " four ")),
        ("<think>two</think>four", False, ("two", "four")),
        (" <think>\ntwo\n</think>\n\nfour\n", False, ("two", "four\n")),
        ("<think></think>four", False, ("", "four")),
        ("<think>two and", False, ("two and", "")),
        ("<think>a</think>b</think>c", False, ("a", "b</think>c")),
        ("So <think>two</think>four", False, (None, "So <think>two</think>four")),
        ("two</think>four", False, (None, "two</think>four")),
        ("two</think>four", True, ("two", "four")),
        ("<think>two</think>four", True, ("two", "four")),
        ("two", True, ("two", "")),
        ("", False, (None, "")),
    ],
)
def test_thinking_and_answer_are_taken_apart(text: str, opened: bool, parts: tuple[str | None, str]) -> None:
    assert split(text, opened=opened) == parts


def test_what_is_shown_is_split_again_into_what_it_was() -> None:
    response = Response("The answer\nis 4. ", "two\n\nand two")
    assert split(shown_text(response, show_thinking=True)) == (response.thinking, response.text)


def test_a_prompt_may_open_the_thinking_itself() -> None:
    assert is_opened("<|im_start|>assistant\n<think>\n")
    assert not is_opened("<|im_start|>assistant\n<think>\n\n</think>\n\n")
