"""An episode as rewards see it, the interface of whatever rewards it, and the sum of them all.

A score that is no finite number, or that cannot be had, ends training with the place where that happened: counted as 0
it would teach the policy something that nobody said.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from training.core.errors import TrainingError
from training.core.records import Message
from training.core.thinking import split


class PromptLine(Protocol):
    """A prompt of the data, as ``training.core.conversations.PromptRecord`` has it."""

    @property
    def line(self) -> int:
        """Where it stands in the file, from 1."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation to be answered."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What the line says besides: ``answer``, ``tests``, other keys."""


@dataclass(frozen=True)
class Episode:
    """One prompt and one sampled response to it.

    ``response_ids`` as sampled, with the stop token at the end if ``ended``. ``text`` is the answer, with the
    ``thinking`` taken off (None where there was none). ``record`` and ``line`` are the prompt's in the data.
    """

    prompt: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    text: str
    thinking: str | None
    ended: bool
    record: Mapping[str, Any]
    line: int

    @property
    def spoken_ids(self) -> tuple[int, ...]:
        """The response's ids without the stop token."""
        return self.response_ids[:-1] if self.ended else self.response_ids


def make_episode(
    tokenizer: Any,
    line: PromptLine,
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    *,
    ended: bool,
    thinking_opened: bool = False,
) -> Episode:
    """An episode from sampled ids, its text decoded without control tokens and taken apart.

    Args:
        response_ids: the stop token included, if ``ended``.
        thinking_opened: as ``opened`` of ``training.core.thinking.split``.
    """
    spoken = list(response_ids[:-1] if ended else response_ids)
    text = str(tokenizer.decode(spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    thinking, answer = split(text, opened=thinking_opened)
    return Episode(
        prompt=line.prompt, prompt_ids=tuple(prompt_ids), response_ids=tuple(response_ids), text=answer,
        thinking=thinking, ended=ended, record=line.record, line=line.line,
    )  # fmt: skip


class RewardSource(Protocol):
    """Whatever gives scores: ``name`` is unique among the sources of a run, ``weight`` what its scores count."""

    name: str
    weight: float

    def check(self, line: PromptLine) -> None:
        """Refuse a prompt whose responses could not be scored, before anything is trained.

        Raises:
            UsageError: what the prompt lacks; the message need not name source and line, ``make_sources`` does.
        """

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """A score for each, in order. Processes call it together, each with its own episodes, possibly none.

        Raises:
            ScoreFailure, TrainingError: a score cannot be had.
        """


class ScoreFailure(Exception):
    """A score cannot be had: why, and the position of the episode, or None if that cannot be said."""

    def __init__(self, reason: str, place: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.place = reason, place


@dataclass(frozen=True)
class Scores:
    """``total`` (N,), the weighted sum, and each source's own scores (N,), unweighted, by name."""

    total: list[float]
    by_name: dict[str, list[float]]


def score_all(sources: Sequence[RewardSource], episodes: Sequence[Episode]) -> Scores:
    """Score N episodes with every source: total = Σ weight · score.

    All processes call this together, each with its own episodes, even with none: models that run out of memory make
    smaller micro-batches in all of them.

    Raises:
        TrainingError: a source failed, or gave a score that is no finite number, or too few or too many of them; the
            message names the source, the prompt's line and the reason.
    """
    by_name: dict[str, list[float]] = {}
    faults: list[TrainingError] = []
    for source in sources:
        try:
            by_name[source.name] = _scores_of(source, episodes)
        except TrainingError as error:
            # The other sources are asked all the same: in other processes they may wait for this one.
            faults.append(error)
    if faults:
        raise faults[0]
    total = [math.fsum(source.weight * by_name[source.name][place] for source in sources)
             for place in range(len(episodes))]  # fmt: skip
    for place, value in enumerate(total):
        if not math.isfinite(value):
            raise TrainingError(f"the rewards of prompt line {episodes[place].line} add up to {value}")
    return Scores(total, by_name)


def _scores_of(source: RewardSource, episodes: Sequence[Episode]) -> list[float]:
    try:
        scores = source.score(episodes)
        if len(scores) != len(episodes):
            raise ScoreFailure(f"{len(scores)} scores for {len(episodes)} responses")
        return [_finite(score, place) for place, score in enumerate(scores)]
    except ScoreFailure as failure:
        where = _lines(episodes) if failure.place is None else f"prompt line {episodes[failure.place].line}"
        raise TrainingError(f"reward {source.name}, {where}: {failure.reason}") from failure
    except TrainingError as error:
        raise TrainingError(f"reward {source.name}, {_lines(episodes)}: {error}") from error


def _finite(score: Any, place: int) -> float:
    """A score as a float; what merely looks like a number (a text, None) is none."""
    try:
        value = math.nan if isinstance(score, str | bytes) else float(score)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ScoreFailure(f"the score {_brief(score)} is no finite number", place)
    return value


def _brief(value: Any) -> str:
    try:
        return repr(value)[:80]
    except Exception:  # a whole number may be too long to be written, and somebody's own class may do anything
        return f"of type {type(value).__name__}"


def _lines(episodes: Sequence[Episode]) -> str:
    """The lines of a batch, when which of them it was cannot be said."""
    lines = sorted({episode.line for episode in episodes})
    if len(lines) < 2:
        return f"prompt line {lines[0]}" if lines else "no prompt"
    shown = ", ".join(map(str, lines[:8])) + (" …" if len(lines) > 8 else "")
    return f"one of the prompt lines {shown}"
