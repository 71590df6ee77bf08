"""The prompts that a recipe has answered: those of each split that fit, encoded when they are asked for."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from training.core.conversations import PromptFile, PromptRecord
from training.core.errors import UsageError
from training.core.randomness import derive_seed, permutation
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


@dataclass
class Reader:
    """A tokenizer that has to make ``limit`` tokens or fewer of a prompt, and what it saw of those that are used.

    Attributes:
        longest: of the prompts that are used, in tokens.
        thinking_opened: whether the template opens thinking itself.
    """

    encoder: ChatEncoder
    limit: int
    longest: int = 0
    thinking_opened: bool = False


def choose_prompts(file: PromptFile, encoder: ChatEncoder, *, limit: int, splits: Sequence[str]) -> PromptData:
    """The prompts of a file that have no more than ``limit`` tokens.

    Raises:
        UsageError: a prompt cannot be encoded, or there is none to train on.
    """
    reader = Reader(encoder, limit)
    places, dropped = fitting_places(file, [reader], splits=splits)
    found = {split: Prompts(file.prompts, chosen, encoder, reader.thinking_opened) for split, chosen in places.items()}
    if not len(found["train"]):
        raise UsageError(f"{file.path} has no prompt to train on: {file.read} lines, dropped {words_of(dropped)}")
    return PromptData(file, found, dropped, reader.longest, encoder.defused)


def fitting_places(
    file: PromptFile, readers: Sequence[Reader], *, splits: Sequence[str]
) -> tuple[dict[str, "array[int]"], Counter[str]]:
    """Where the prompts of some splits stand that are short enough for every reader, and why the others are left out.

    Raises:
        UsageError: a prompt cannot be encoded; the message names its line.
    """
    dropped = Counter(file.dropped)
    places = {split: array("q") for split in splits}
    for place, record in enumerate(file.prompts):
        if record.split not in places:
            dropped[f"{record.split}_split"] += 1
            continue
        try:
            encoded = [reader.encoder.encode_prompt(record.prompt) for reader in readers]
        except UsageError as error:
            raise UsageError(f"{file.path} line {record.line}: {error}") from None
        if any(len(one.ids) > reader.limit for one, reader in zip(encoded, readers, strict=True)):
            dropped["too_long"] += 1
            continue
        for one, reader in zip(encoded, readers, strict=True):
            reader.longest = max(reader.longest, len(one.ids))
            reader.thinking_opened = reader.thinking_opened or is_opened(one.text)
        places[record.split].append(place)
    return places, dropped


def drawn_numbers(count: int, *, at_most: int | None, seed: int, purpose: str) -> list[int]:
    """Which of so many prompts are answered, in their order: drawn by the seed, fewer of them among more of them."""
    return sorted(permutation(count, derive_seed(seed, purpose))[:at_most])
