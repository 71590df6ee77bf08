"""The form of a response: a pattern that its answer has to hold, or thinking followed by an answer."""

from collections.abc import Sequence

# The package that transformers cuts texts with: unlike the standard library's, its search can be given a time limit.
import regex

from training.core.errors import UsageError
from training.core.reward_sources.episodes import Episode, PromptLine, ScoreFailure
from training.core.thinking import CLOSING, OPENING

MATCH_SECONDS = 5.0


class RegexReward:
    r"""1 if the pattern is found anywhere in the answer, else 0.

    ``\A`` and ``\Z`` tie it to the answer's ends; ``(?i)``, ``(?s)`` and ``(?m)`` at its start change how it is read.

    Raises:
        UsageError: it is no pattern.
    """

    def __init__(self, name: str, weight: float, pattern: str, *, seconds: float = MATCH_SECONDS) -> None:
        self.name, self.weight, self._seconds = name, weight, seconds
        try:
            self._pattern = regex.compile(pattern)
        except regex.error as error:
            raise UsageError(f"no regular expression: {error}") from None

    def check(self, line: PromptLine) -> None:
        """Any prompt will do."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """1.0 or 0.0 for each.

        Raises:
            ScoreFailure: a search took too long. That is the pattern's fault, and no verdict on the answer.
        """
        return [float(self._finds(episode.text, place)) for place, episode in enumerate(episodes)]

    def _finds(self, text: str, place: int) -> bool:
        try:
            return self._pattern.search(text, timeout=self._seconds) is not None
        except TimeoutError:
            reason = f"the pattern takes more than {self._seconds:g} s on an answer of {len(text)} characters"
            raise ScoreFailure(reason, place) from None


class FormatReward:
    """1 for ``<think>…</think>`` followed by an answer, else 0.

    There has to be one thinking, with something in it, at the beginning and closed; then an answer with something in
    it; and no such tag besides.
    """

    def __init__(self, name: str, weight: float) -> None:
        self.name, self.weight = name, weight

    def check(self, line: PromptLine) -> None:
        """Any prompt will do."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """1.0 or 0.0 for each."""
        return [float(_is_formed(episode)) for episode in episodes]


def _is_formed(episode: Episode) -> bool:
    parts = (episode.thinking or "", episode.text)
    tags = any(tag in part for part in parts for tag in (OPENING, CLOSING))
    return all(part.strip() for part in parts) and not tags
