"""A function of somebody's own as a source of rewards."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from training.core.halving import first_line
from training.core.records import Response
from training.core.reward_sources.episodes import Episode, PromptLine, ScoreFailure
from training.core.tokens import shown_text


class FunctionReward:
    """What ``function(prompts, responses, records)`` gives.

    The function gets three lists of equal length: conversations (lists of ``{"role", "content"}``), texts, and the
    prompts' lines (a copy: what it changes is lost). It gives a list of as many numbers. The texts are the answers,
    with the thinking in front of them, in its tags, if ``show_thinking``. It is called in every process, with that
    one's own responses, and not at all where there are none; the same response may be scored anew after a resume.
    """

    def __init__(self, name: str, weight: float, function: Callable[..., Any], *, show_thinking: bool) -> None:
        self.name, self.weight, self._function, self._show_thinking = name, weight, function, show_thinking

    def check(self, line: PromptLine) -> None:
        """Any prompt will do: what the function needs it alone knows."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """The function's list; whether its numbers can be used is seen in ``score_all``.

        Raises:
            ScoreFailure: the function failed, or gave no list.
        """
        if not episodes:
            return []
        prompts = [[{"role": message.role, "content": message.content} for message in episode.prompt]
                   for episode in episodes]  # fmt: skip
        responses = [shown_text(Response(episode.text, episode.thinking), show_thinking=self._show_thinking)
                     for episode in episodes]  # fmt: skip
        records = [copy.deepcopy(dict(episode.record)) for episode in episodes]
        try:
            scores = self._function(prompts, responses, records)
            return list(scores)
        except Exception as error:  # it is somebody's own code
            raise ScoreFailure(f"{type(error).__name__}: {first_line(error)}") from error
