"""SFT's documents: a prompt with one response behind it, as ids, and how several of them share a row.

A document ends with the first stop token of the template's own ending: what a template writes behind it (ChatML's line
break) is never sampled, and nothing that is learned follows it. Where the ending has none, the end-of-sequence token
stands in its place: what is imitated is what sampling gives. The loss is on the response and that token alone.

Packed, a row of documents is a ``TokenisedExample`` with an empty prompt and the documents as its responses: by the
mask of ``training.core.packing`` each of them sees itself alone, and its positions begin at 0.
"""

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from training.core.conversations import Demonstration, DemonstrationFile
from training.core.errors import UsageError
from training.core.packing import TokenisedExample
from training.core.split_writer import TextEncoder
from training.core.tokens import ChatEncoder


class Documents:
    """The documents of one split: their ids in one array, four bytes a token.

    Columns, one number a document: ``places`` among the file's demonstrations; ``groups``, numbers of split groups;
    ``lengths`` in tokens; ``contexts``, the leading tokens that are no targets (the prompt with its generation prompt).
    """

    def __init__(self) -> None:
        self.places, self.groups = array("q"), array("q")
        self.lengths, self.contexts = array("i"), array("i")
        self._tokens, self._starts = array("i"), array("q", [0])

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, ids: Sequence[int], *, context: int, place: int, group: int) -> None:
        """Append a document."""
        self._tokens.extend(ids)
        self._starts.append(len(self._tokens))
        for column, value in ((self.lengths, len(ids)), (self.contexts, context), (self.places, place)):
            column.append(value)
        self.groups.append(group)

    def ids(self, number: int) -> tuple[int, ...]:
        """The tokens of a document."""
        return tuple(self._tokens[self._starts[number] : self._starts[number + 1]])

    def targets(self, number: int) -> int:
        """How many tokens of a document are learned: its response and its end."""
        return self.lengths[number] - self.contexts[number]

    @property
    def longest(self) -> int:
        """Tokens of the longest document; 0 without any."""
        return max(self.lengths, default=0)

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return len(self._tokens)

    @property
    def all_targets(self) -> int:
        """Tokens that are learned, of all documents."""
        return self.tokens - sum(self.contexts)


@dataclass(frozen=True)
class EncodedDocuments:
    """The splits of a file, ready to train from, and what became of the rest.

    ``dropped`` counts lines by reason, those of the reading included; ``sources`` the documents by where they come
    from; ``defused`` the texts that hold control tokens, encoded as the plain text that they are; ``shared_groups``
    the split groups with documents in more than one split that is read.
    """

    splits: dict[str, Documents]
    dropped: Counter[str]
    sources: Counter[str]
    defused: int
    shared_groups: int


def encode_documents(
    file: DemonstrationFile,
    encoder: ChatEncoder,
    *,
    splits: Collection[str],
    max_length: int,
    stop_ids: Collection[int],
) -> EncodedDocuments:
    """The documents of the splits that are read, in the file's order.

    Dropped and counted besides: ``SPLIT_split``, one that is not read, and ``too_long``: a prompt with its response
    and the template's whole ending over ``max_length`` tokens.

    Raises:
        UsageError: a text that cannot be encoded (the message names its line), or nothing to end a response with.
    """
    texts = TextEncoder(encoder, max_length)
    end = ResponseEnding(encoder, stop_ids)
    found = {split: Documents() for split in splits}
    groups: dict[str, int] = {}
    spread: dict[int, set[str]] = {}
    dropped, sources = Counter(file.dropped), Counter[str]()
    defused = 0
    for place, demonstration in enumerate(file.demonstrations):
        if demonstration.split not in found:
            dropped[f"{demonstration.split}_split"] += 1
            continue
        prompt, response, suspects = _encoded(demonstration, texts)
        if len(prompt) + len(response) > max_length:
            dropped["too_long"] += 1
            continue
        group = groups.setdefault(demonstration.split_group, len(groups))
        spread.setdefault(group, set()).add(demonstration.split)
        found[demonstration.split].add(prompt + end.cut(response), context=len(prompt), place=place, group=group)
        sources[demonstration.source] += 1
        defused += suspects
    shared = sum(len(where) > 1 for where in spread.values())
    return EncodedDocuments(found, dropped, sources, defused, shared)


def _encoded(demonstration: Demonstration, texts: TextEncoder) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """The ids of prompt and response (with the template's ending), and how many texts hold control tokens."""
    shown = texts.shown(demonstration.response)
    try:
        prompt, before = texts.prompt(demonstration.prompt)
        response, behind = texts.response(demonstration.prompt, shown)
    except UsageError as error:
        raise UsageError(f"line {demonstration.line}: {error}") from None
    if not prompt:
        raise UsageError(f"line {demonstration.line}: the chat template writes nothing before the response")
    return prompt, response, before + behind


class ResponseEnding:
    """What a response ends with when it is learned."""

    def __init__(self, encoder: ChatEncoder, stop_ids: Collection[int]) -> None:
        self._template = len(encoder.ending_ids)
        kept = next((place + 1 for place, token in enumerate(encoder.ending_ids) if token in stop_ids), None)
        if kept is None and encoder.tokenizer.eos_token_id is None:
            raise UsageError("the tokenizer has no end-of-sequence token, and its chat template ends no response")
        self._ids = encoder.ending_ids[:kept] if kept is not None else (int(encoder.tokenizer.eos_token_id),)

    def cut(self, response: tuple[int, ...]) -> tuple[int, ...]:
        """A response with the template's ending, with this one in its place."""
        return response[: len(response) - self._template] + self._ids


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DocumentRows:
    """Documents as examples to forward: ``members`` are the numbers of the documents of each, in its order.

    ``skip`` is what ``token_places`` wants: the leading tokens of each document that are no targets.
    """

    examples: list[TokenisedExample]
    members: list[tuple[int, ...]]
    skip: Mapping[tuple[int, int], int] = field(repr=False)


def lay_documents(documents: Documents, numbers: Iterable[int], *, packed: bool, capacity: int) -> DocumentRows:
    """Rows of some documents: as few as ``fill_rows`` finds, or one a document where rows are not packed."""
    wanted = list(numbers)
    lengths = [documents.lengths[number] for number in wanted]
    bins = fill_rows(lengths, capacity=capacity) if packed else [[place] for place in range(len(wanted))]
    members = [tuple(wanted[place] for place in row) for row in bins]
    return DocumentRows(
        examples=[TokenisedExample((), tuple(documents.ids(number) for number in row)) for row in members],
        members=members,
        skip={
            (example, place): documents.contexts[number]
            for example, row in enumerate(members)
            for place, number in enumerate(row)
        },
    )


def fill_rows(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Positions in ``lengths``, row by row: first-fit decreasing (Johnson 1973; at most 11/9 of the best + 6/9 rows).

    What is longer than ``capacity`` gets a row of its own. Equal lengths keep their order, so that the rows depend on
    the lengths alone.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        row = next((number for number, room in enumerate(free) if room >= lengths[place]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            free.append(capacity)
        rows[row].append(place)
        free[row] -= lengths[place]
    return rows
