"""How much text a snapshot holds, in about as many tokens: for estimates made where no tokenizer is loaded.

Standard library only. The rule: four ASCII characters are a token and every other character is one; of a vocabulary of
bytes every byte is. English prose has 3.5 to 4.5 characters a token with SmolLM2's tokenizer (docs/experiments.md);
texts in other languages and code may take half as many tokens again. The template adds ``MESSAGE_TOKENS`` a message.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ASCII_PER_TOKEN = 4
MESSAGE_TOKENS = 5
# A tokenizer with so few entries writes nearly every byte as one.
BYTE_VOCABULARY = 512
LEFT_OUT = frozenset(("gold", "repeat"))


@dataclass(slots=True)
class Amount:
    """Some rows of text: how many, their tokens, and those of the longest that cannot be divided."""

    rows: int = 0
    tokens: float = 0.0
    longest: float = 0.0

    def add(self, tokens: float, longest: float) -> None:
        """One more row."""
        self.rows, self.tokens, self.longest = self.rows + 1, self.tokens + tokens, max(self.longest, longest)

    def times(self, factor: float) -> "Amount":
        """Of a whole of which this is a sample; the longest stays, which is then the longest seen."""
        return Amount(round(self.rows * factor), self.tokens * factor, self.longest)


@dataclass(slots=True)
class SplitTexts:
    """What the recipes make of one split.

    Attributes:
        ranked: a row for each distinct prompt with rankings, its distinct responses behind it (reward, DPO).
        answers: a row for each good answer with its prompt (SFT).
        prompts: a row for each distinct prompt (PPO).
        responses: how many ``ranked`` holds, and their tokens alone.
    """

    ranked: Amount = field(default_factory=Amount)
    answers: Amount = field(default_factory=Amount)
    prompts: Amount = field(default_factory=Amount)
    responses: Amount = field(default_factory=Amount)

    def times(self, factor: float) -> "SplitTexts":
        """See ``Amount.times``."""
        return SplitTexts(*(part.times(factor) for part in (self.ranked, self.answers, self.prompts, self.responses)))


def tokens_of(text: str, *, bytewise: bool) -> float:
    """About how many tokens a text is."""
    if bytewise:
        return len(text.encode(errors="replace"))
    plain = len(text.encode("ascii", "ignore"))
    return plain / ASCII_PER_TOKEN + len(text) - plain


def count_texts(lines: Iterable[str | bytes], *, bytewise: bool) -> dict[str, SplitTexts]:
    """The texts of a snapshot's lines by split; lines that are no records are passed over.

    Args:
        bytewise: whether the tokenizer's vocabulary is one of bytes.
    """
    counter = _Counter(bytewise)
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and _is_used(record):
            counter.add(record)
    return counter.finish()


def _is_used(record: Mapping[str, Any]) -> bool:
    """Whether recipes read the line unless they are asked otherwise."""
    return record.get("counted", True) is not False and record.get("kind") not in LEFT_OUT


class _Counter:
    """Gathers the rankings of a prompt, which share its row."""

    def __init__(self, bytewise: bool) -> None:
        self._bytewise = bytewise
        self._found: dict[str, SplitTexts] = {}
        self._prompts: dict[tuple[str, int], float] = {}
        self._responses: dict[tuple[str, int], dict[int, float]] = {}
        self._answers: set[tuple[tuple[str, int], int]] = set()

    def add(self, record: Mapping[str, Any]) -> None:
        split = str(record.get("split"))
        texts = self._found.setdefault(split, SplitTexts())
        messages = record.get("prompt")
        if not isinstance(messages, list):
            return
        key = (split, hash(json.dumps(messages, sort_keys=True)))
        if key not in self._prompts:
            self._prompts[key] = sum(self._message(one) for one in messages) + MESSAGE_TOKENS
            texts.prompts.add(self._prompts[key], self._prompts[key])
        if "ranking" in record:
            self._add_ranking(texts, key, record)
        elif isinstance(record.get("response"), dict):
            self._add_answer(texts, key, record["response"])

    def _add_answer(self, texts: SplitTexts, key: tuple[str, int], answer: Mapping[str, Any]) -> None:
        pair = (key, hash(str(answer.get("content", answer.get("text")))))
        if pair not in self._answers:
            self._answers.add(pair)
            length = self._prompts[key] + self._message(answer)
            texts.answers.add(length, length)

    def _add_ranking(self, texts: SplitTexts, key: tuple[str, int], record: Mapping[str, Any]) -> None:
        found = [one for one in record.get("responses") or () if isinstance(one, dict)]
        kept = self._responses.setdefault(key, {})
        kept.update({hash(str(one.get("text"))): self._message(one) for one in found})
        ranking, rewrite = record.get("ranking"), record.get("rewrite")
        best = ranking[0] if isinstance(ranking, list) and ranking and not record.get("all_bad") else ()
        # A judgement is imitated once: by its rewrite, else by the best response.
        answer = rewrite if isinstance(rewrite, dict) else next((one for one in found if one.get("id") in best), None)
        if answer is not None:
            self._add_answer(texts, key, answer)

    def finish(self) -> dict[str, SplitTexts]:
        for key, responses in self._responses.items():
            texts, prompt = self._found[key[0]], self._prompts[key]
            for length in responses.values():
                texts.responses.add(length, length)
            texts.ranked.add(prompt + sum(responses.values()), prompt + max(responses.values(), default=0))
        return self._found

    def _message(self, value: Any) -> float:
        """A message or a response, with what the template writes around it."""
        told = value if isinstance(value, dict) else {}
        text = told.get("content", told.get("text"))
        return tokens_of(text if isinstance(text, str) else "", bytewise=self._bytewise) + MESSAGE_TOKENS
