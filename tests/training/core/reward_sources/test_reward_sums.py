"""From flags to a sum: what is refused at the start, and that a failure is never a score."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.training.core.reward_sources.episodes import episode
from training.core.distributed import World
from training.core.errors import TrainingError, UsageError
from training.core.halving import MicroBatchBudget
from training.core.local_models import byte_tokenizer
from training.core.reward_sources.episodes import (
    Episode,
    PromptLine,
    RewardSource,
    ScoreFailure,
    make_episode,
    score_all,
)
from training.core.reward_sources.functions import FunctionReward
from training.core.reward_sources.grammar import parse_reward
from training.core.reward_sources.making import make_sources
from training.core.reward_sources.models import Reading
from training.core.tokens import ChatEncoder


class Fixed:
    """Gives what it is told to, or raises it."""

    def __init__(self, name: str, weight: float, scores: list[Any] | Exception) -> None:
        self.name, self.weight, self._scores = name, weight, scores

    def check(self, line: PromptLine) -> None:
        pass

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        if isinstance(self._scores, Exception):
            raise self._scores
        return self._scores


THREE = [episode("a", line=4), episode("b", line=7), episode("c", line=7)]


def reading() -> Reading:
    budget = MicroBatchBudget(tokens=64, floor=64, world=World(), device=torch.device("cpu"))
    return Reading(ChatEncoder(byte_tokenizer()), budget, torch.float32, False, 16, 16)


def make(*flags: str, prompts: Sequence[Episode] = (), **rules: Any) -> list[RewardSource]:
    return make_sources([parse_reward(flag) for flag in flags], prompts, reading=reading(), **rules)


def test_the_total_is_the_weighted_sum_and_the_parts_are_kept_apart() -> None:
    scores = score_all([Fixed("a", 2.0, [1.0, 0.0, -1.0]), Fixed("b", -0.5, [4, True, 0.25])], THREE)
    assert scores.total == [0.0, -0.5, -2.125]
    assert scores.by_name == {"a": [1.0, 0.0, -1.0], "b": [4.0, 1.0, 0.25]}


def test_no_episodes_have_no_scores() -> None:
    assert score_all([Fixed("a", 1.0, [])], []).by_name == {"a": []}


@pytest.mark.parametrize(
    "score", [math.nan, math.inf, None, "1", [1.0], 10**400, 10**9000], ids=lambda score: type(score).__name__
)
def test_what_is_no_finite_number_ends_training_and_says_where(score: Any) -> None:
    with pytest.raises(TrainingError, match="reward mine, prompt line 7: the score .* is no finite number"):
        score_all([Fixed("other", 1.0, [0, 0, 0]), Fixed("mine", 0.0, [1.0, score, 1.0])], THREE)


def test_finite_scores_may_add_up_to_infinity() -> None:
    with pytest.raises(TrainingError, match="prompt line 4 add up to inf"):
        score_all([Fixed("a", 10.0, [1e308, 0.0, 0.0])], THREE)


def test_a_list_of_another_length_is_a_failure() -> None:
    with pytest.raises(TrainingError, match="reward a, one of the prompt lines 4, 7: 2 scores for 3 responses"):
        score_all([Fixed("a", 1.0, [1.0, 2.0])], THREE)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (ScoreFailure("too long", 2), "reward a, prompt line 7: too long"),
        (ScoreFailure("gone"), "reward a, one of the prompt lines 4, 7: gone"),
        (TrainingError("out of memory"), "reward a, one of the prompt lines 4, 7: out of memory"),
    ],
)
def test_a_failing_source_is_named_with_line_and_reason(failure: Exception, words: str) -> None:
    with pytest.raises(TrainingError) as error:
        score_all([Fixed("a", 1.0, failure)], THREE)
    assert str(error.value) == words


def test_a_failing_source_does_not_keep_the_others_from_being_asked() -> None:
    # In another process nothing may have failed, and a model there waits for the same model here.
    asked = []

    def function(prompts: Any, responses: Any, records: Any) -> list[float]:
        asked.append(len(responses))
        return [0.0] * len(responses)

    sources = [Fixed("a", 1.0, ScoreFailure("first")), FunctionReward("f", 1.0, function, show_thinking=False),
               Fixed("b", 1.0, [math.nan] * 3)]  # fmt: skip
    with pytest.raises(TrainingError, match="reward a, .*: first"):
        score_all(sources, THREE)
    assert asked == [3]


# --- functions --------------------------------------------------------------------------------------------------------


def test_a_function_gets_conversations_texts_and_copies_of_the_lines() -> None:
    seen: list[Any] = []

    def function(prompts: Any, responses: Any, records: Any) -> list[float]:
        seen.append((prompts, list(responses), [dict(each) for each in records]))
        records[0]["answer"].append("changed")
        return [float(len(response)) for response in responses]

    ours = episode("four", thinking="two", record={"answer": ["4"]})
    assert FunctionReward("f", 1.0, function, show_thinking=False).score([ours]) == [4.0]
    assert seen == [([[{"role": "user", "content": "?"}]], ["four"], [{"answer": ["4", "changed"]}])]
    assert ours.record == {"answer": ["4"]}
    FunctionReward("f", 1.0, function, show_thinking=True).score([ours])
    assert seen[-1][1] == ["<think>\ntwo\n</think>\n\nfour"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda prompts, responses, records: [1.0], "1 scores for 3 responses"),
        (lambda prompts, responses, records: [1.0] * 4, "4 scores for 3 responses"),
        (lambda prompts, responses, records: [1 / 0], "ZeroDivisionError: division by zero"),
        (lambda prompts, responses, records: None, "TypeError"),
    ],
)
def test_a_function_that_fails_ends_training(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=f"reward f, one of the prompt lines 4, 7: {reason}"):
        score_all([FunctionReward("f", 1.0, function, show_thinking=False)], THREE)


def test_a_function_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("some_rewards")
    module.brevity = lambda prompts, responses, records: [-float(len(text)) for text in responses]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_rewards", module)
    flag = "python:some_rewards.brevity*0.5"
    for allowed in (None, ["some_rewards.brevity"]):
        (source,) = make(flag, allowed_functions=allowed)
        assert (source.name, source.weight, source.score([episode("four")])) == ("python-brevity", 0.5, [-4.0])
    for refused in ((), ["some_rewards.length"]):
        with pytest.raises(UsageError, match="none of the functions allowed"):
            make(flag, allowed_functions=refused)
    with pytest.raises(UsageError, match="none of the functions allowed"):
        make(flag)
    with pytest.raises(UsageError, match="has no function length"):
        make("python:some_rewards.length", allowed_functions=None)
    with pytest.raises(UsageError, match="cannot import no_such_module_at_all"):
        make("python:no_such_module_at_all.f", allowed_functions=None)


# --- at the start -----------------------------------------------------------------------------------------------------


def test_code_is_run_only_where_that_is_allowed() -> None:
    with pytest.raises(UsageError, match="--reward tests\\*2 .* --allow-code-execution"):
        make("tests*2")


@pytest.mark.parametrize(
    ("flag", "record", "words"),
    [
        ("exact", {}, 'it has no "answer"'),
        ("numeric", {"answer": "Paris"}, "there is no number"),
        ("tests", {}, 'it has no "tests"'),
        ("tests", {"tests": "assert ("}, "no Python"),
        ("tests:share", {"tests": ["assert 1", 2]}, "must be Python source"),
        ("tests", {"tests": [" "]}, "must be Python source"),
    ],
)
def test_a_prompt_that_lacks_what_is_needed_is_refused_at_the_start(
    flag: str, record: dict[str, Any], words: str
) -> None:
    good = {"answer": "4", "tests": "assert f(2) == 4"}
    make("exact", flag, prompts=[episode("", record=good)], allow_code_execution=True)
    with pytest.raises(UsageError) as error:
        make("format", flag, prompts=[episode("", record=good), episode("", record=record, line=9)],
             allow_code_execution=True)  # fmt: skip
    assert f"--reward {flag}: prompt line 9: " in str(error.value)
    assert words in str(error.value)


def test_what_a_source_cannot_be_made_of_is_told_with_its_flag(tmp_path: Path) -> None:
    for flag in (f"model:{tmp_path / 'nothing'}", "regex:(a"):
        with pytest.raises(UsageError) as error:
            make(flag)
        assert str(error.value).startswith(f"--reward {flag}: ")


# --- episodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampled", "opened", "thinking", "text"),
    [
        ("4!", False, None, "4!"),
        ("<think>two</think>4", False, "two", "4"),
        ("two</think>4", True, "two", "4"),
        ("<|im_start|>4 <|endoftext|>", False, None, "4 "),
    ],
)
def test_an_episode_is_read_from_sampled_ids(sampled: str, opened: bool, thinking: str | None, text: str) -> None:
    tokenizer, line = byte_tokenizer(), episode("", record={"answer": 4}, line=5)
    ids = tokenizer(sampled)["input_ids"]
    ended = make_episode(tokenizer, line, [1, 2], [*ids, 7], ended=True, thinking_opened=opened)
    cut = make_episode(tokenizer, line, [1, 2], ids, ended=False, thinking_opened=opened)
    for found in (ended, cut):
        assert (found.thinking, found.text, found.line, found.record) == (thinking, text, 5, {"answer": 4})
        assert found.spoken_ids == tuple(ids)
    assert ended.response_ids == (*ids, 7)
