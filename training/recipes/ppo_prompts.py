"""The prompts that ``recipes.ppo`` has answered: those of each split that fit, encoded when they are asked for."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from training.core.conversations import PromptFile, PromptRecord
from training.core.errors import UsageError
from training.core.thinking import is_opened
from training.core.tokens import ChatEncoder
from training.recipes.preparing import words_of

HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Prompts:
    """The prompts of one split, by number; ``thinking_opened`` says that the template opens thinking itself."""

    lines: Sequence[PromptRecord]
    places: Sequence[int]
    encoder: ChatEncoder
    thinking_opened: bool

    def __len__(self) -> int:
        return len(self.places)

    @property
    def tokenizer(self) -> Any:
        """The policy's."""
        return self.encoder.tokenizer

    def record(self, number: int) -> PromptRecord:
        """A prompt as it stands in the file, read from there."""
        return self.lines[self.places[number]]

    def ids(self, number: int) -> tuple[int, ...]:
        """A prompt's ids, the template's generation prompt included."""
        return self.encoder.encode_prompt(self.record(number).prompt).ids

    def records(self) -> Iterator[PromptRecord]:
        """All of them, in the file's order."""
        return (self.record(number) for number in range(len(self)))


@dataclass(frozen=True)
class PromptData:
    """A file's prompts by split, and why the others are left out.

    ``longest`` is that of a prompt that is used, in tokens; ``defused`` counts texts that hold control tokens.
    """

    file: PromptFile
    splits: dict[str, Prompts]
    dropped: Counter[str]
    longest: int
    defused: int

    @property
    def train(self) -> Prompts:
        """What the policy learns from."""
        return self.splits["train"]

    @property
    def validation(self) -> Prompts:
        """What it is watched on."""
        return self.splits["validation"]

    def counts(self) -> dict[str, Any]:
        """For the report: lines read, prompts used, and why the rest is not."""
        return {
            "read": self.file.read,
            "used": sum(map(len, self.splits.values())),
            "dropped": dict(sorted(self.dropped.items())),
            **{split: {"prompts": len(prompts)} for split, prompts in self.splits.items()},
        }


def choose_prompts(file: PromptFile, encoder: ChatEncoder, *, limit: int, splits: Sequence[str]) -> PromptData:
    """The prompts of a file that have no more than ``limit`` tokens.

    Raises:
        UsageError: a prompt cannot be encoded, or there is none to train on.
    """
    dropped = Counter(file.dropped)
    places = {split: array("q") for split in splits}
    longest, opened = 0, False
    for place, record in enumerate(file.prompts):
        if record.split not in places:
            dropped[f"{record.split}_split"] += 1
            continue
        try:
            encoded = encoder.encode_prompt(record.prompt)
        except UsageError as error:
            raise UsageError(f"{file.path} line {record.line}: {error}") from None
        if len(encoded.ids) > limit:
            dropped["too_long"] += 1
            continue
        longest, opened = max(longest, len(encoded.ids)), opened or is_opened(encoded.text)
        places[record.split].append(place)
    found = {split: Prompts(file.prompts, chosen, encoder, opened) for split, chosen in places.items()}
    if not len(found["train"]):
        raise UsageError(f"{file.path} has no prompt to train on: {file.read} lines, dropped {words_of(dropped)}")
    return PromptData(file, found, dropped, longest, encoder.defused)
