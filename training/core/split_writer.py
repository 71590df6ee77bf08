"""One split of a snapshot on its way to the arrays of ``training.core.dataset``: texts encoded once, then numbers."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from training.core.dataset import UNRANKED, Numbers
from training.core.examples import JudgedRanking
from training.core.records import Message, RankingRecord, Response
from training.core.tokens import ChatEncoder, EncodedPrompt

PROMPTS_AT_HAND = 64


class Names:
    """Numbers instead of names, the same in all splits."""

    def __init__(self) -> None:
        self.annotators: dict[str, int] = {}
        self._groups: dict[bytes, int] = {}
        self._tasks: dict[bytes, int] = {}

    def annotator(self, name: str | None) -> int:
        return -1 if name is None else self.annotators.setdefault(name, len(self.annotators))

    def task(self, name: str | None) -> int:
        return -1 if name is None else self._tasks.setdefault(digest_of(name), len(self._tasks))

    def group(self, name: str) -> int:
        return self._groups.setdefault(digest_of(name), len(self._groups))


@dataclass
class _AtHand:
    """An encoded prompt and the responses behind it, each with the number of its texts that hold control tokens."""

    prompt: EncodedPrompt
    defused: int
    responses: dict[Response, tuple[tuple[int, ...], int]] = field(default_factory=dict)


class TextEncoder:
    """Encodes prompts and responses; the last few prompts and the responses behind them stay at hand."""

    def __init__(self, encoder: ChatEncoder, max_length: int) -> None:
        self._encoder, self._max_length = encoder, max_length
        self._prompts: OrderedDict[tuple[Message, ...], _AtHand] = OrderedDict()

    def shown(self, response: Response) -> Response:
        """Without thinking where it is hidden: responses that differ in thinking alone are then one."""
        return response if self._encoder.show_thinking else Response(response.text)

    def prompt(self, prompt: tuple[Message, ...]) -> tuple[tuple[int, ...], int]:
        """The prompt's ids, and how many of its messages hold control tokens."""
        kept = self._at_hand(prompt)
        return kept.prompt.ids, kept.defused

    def response(self, prompt: tuple[Message, ...], response: Response) -> tuple[tuple[int, ...], int]:
        """The response's ids behind that prompt, and 1 if it holds control tokens, else 0."""
        kept = self._at_hand(prompt)
        if response not in kept.responses:
            before = self._encoder.defused
            ids = self._encoder.encode_response(prompt, kept.prompt, response)
            kept.responses[response] = (ids, self._encoder.defused - before)
        return kept.responses[response]

    def fits(self, prompt: tuple[Message, ...], response: Response) -> bool:
        """Whether prompt and response together are short enough."""
        return len(self.prompt(prompt)[0]) + len(self.response(prompt, response)[0]) <= self._max_length

    def _at_hand(self, prompt: tuple[Message, ...]) -> _AtHand:
        if prompt not in self._prompts:
            before = self._encoder.defused
            encoded = self._encoder.encode_prompt(prompt)
            self._prompts[prompt] = _AtHand(encoded, self._encoder.defused - before)
            if len(self._prompts) > PROMPTS_AT_HAND:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(prompt)
        return self._prompts[prompt]


class _Columns:
    """Growing columns of numbers, as chunks of arrays."""

    def __init__(self, **kinds: str) -> None:
        self._kinds = kinds
        self._rows: dict[str, list[int | float]] = {name: [] for name in kinds}
        self._chunks: dict[str, list[Numbers]] = {name: [] for name in kinds}

    def add(self, **values: int | float) -> None:
        for name, value in values.items():
            self._rows[name].append(value)
        if len(self._rows[name]) >= 65_536:
            self._flush()

    def column(self, name: str) -> Numbers:
        self._flush()
        return np.concatenate([np.zeros(0, self._kinds[name]), *self._chunks[name]])

    def _flush(self) -> None:
        for name, rows in self._rows.items():
            self._chunks[name].append(np.array(rows, self._kinds[name]))
            rows.clear()


class SplitWriter:
    """One split on its way to disk: ids in the order in which they come, put in the examples' order at the end.

    ``defused`` and ``cut`` count as in ``Encoded``.
    """

    def __init__(self, folder: Path, names: Names) -> None:
        folder.mkdir()
        self.defused = self.cut = 0
        self._folder, self._names = folder, names
        self._raw: IO[bytes] = open(folder / "raw", "w+b")  # noqa: SIM115 closed by finish
        self._written = 0
        self._examples: dict[bytes, int] = {}
        self._responses: list[dict[bytes, int]] = []
        self._groups: list[int] = []
        self._texts = _Columns(example="i8", start="i8", size="i4", characters="i4", line="i8", position="i4")
        self._rankings = _Columns(example="i8", entries="i4", weight="f8", annotator="i4", machine="i1", task="i4",
                                  pairs="i4")  # fmt: skip
        self._entries = _Columns(place="i4", tier="i4", strength="i1")

    def add(
        self,
        record: RankingRecord,
        judged: JudgedRanking,
        shown: Sequence[Response],
        texts: TextEncoder,
        *,
        pairs: int,
    ) -> None:
        """Add a ranking of so many pairs, with the texts that are new."""
        example = self._example(record, texts)
        places = {place: self._place(example, record, place, shown[place], texts) for place in places_of(judged)}
        entries = [
            (places[place], tier, (judged.strengths[tier] or 0) if tier < len(judged.strengths) else 0)
            for tier, members in enumerate(judged.tiers)
            for place in members
        ]
        entries += [(places[place], UNRANKED, 0) for place in judged.unranked]
        for place, tier, strength in entries:
            self._entries.add(place=place, tier=tier, strength=strength)
        self._rankings.add(
            example=example, entries=len(entries), weight=record.weight, machine=record.machine,
            annotator=self._names.annotator(record.annotator), task=self._names.task(record.task),
            pairs=pairs,
        )  # fmt: skip

    def finish(self) -> None:
        """Write the arrays, example by example."""
        self._raw.flush()
        texts = {name: self._texts.column(name) for name in
                 ("example", "start", "size", "characters", "line", "position")}  # fmt: skip
        order = np.argsort(texts["example"], kind="stable")
        rankings = {name: self._rankings.column(name) for name in
                    ("example", "entries", "weight", "annotator", "machine", "task", "pairs")}  # fmt: skip
        by_example = np.argsort(rankings["example"], kind="stable")
        entries = {name: self._entries.column(name) for name in ("place", "tier", "strength")}
        entry_order = _expand(_starts(rankings["entries"])[:-1][by_example], rankings["entries"][by_example])
        count = len(self._examples)
        example_text = np.searchsorted(texts["example"][order], np.arange(count + 1))
        text_start = _starts(texts["size"][order])
        self._save_tokens(texts["start"][order], texts["size"][order])
        self._save("text_start", text_start)
        for name in ("characters", "line", "position"):
            self._save(f"text_{name}", texts[name][order])
        self._save("example_text", example_text)
        self._save("example_group", np.array(self._groups, "i4"))
        self._save("example_ranking", np.searchsorted(rankings["example"][by_example], np.arange(count + 1)))
        self._save("longest", _longest(texts["size"][order], example_text))
        for name in ("weight", "annotator", "machine", "task", "pairs"):
            self._save(f"ranking_{name}", rankings[name][by_example])
        self._save("ranking_entry", _starts(rankings["entries"][by_example]))
        for name, column in entries.items():
            self._save(f"entry_{name}", column[entry_order])
        self._raw.close()
        (self._folder / "raw").unlink()

    def _example(self, record: RankingRecord, texts: TextEncoder) -> int:
        messages = (part for message in record.prompt for part in (message.role, message.content))
        key = digest_of(record.split_group, *messages)
        if key not in self._examples:
            self._examples[key] = len(self._examples)
            self._responses.append({})
            self._groups.append(self._names.group(record.split_group))
            ids, defused = texts.prompt(record.prompt)
            self.defused += defused
            self._write(self._examples[key], ids, line=record.line)
        return self._examples[key]

    def _place(self, example: int, record: RankingRecord, position: int, response: Response, texts: TextEncoder) -> int:
        known = self._responses[example]
        key = digest_of(response.text, response.thinking or "")
        if key not in known:
            known[key] = len(known)
            ids, defused = texts.response(record.prompt, response)
            self.defused += defused
            self._write(example, ids, characters=len(response.text), line=record.line, position=position)
        return known[key]

    def _write(self, example: int, ids: Sequence[int], *, line: int, characters: int = 0, position: int = -1) -> None:
        self._raw.write(np.array(ids, "i4").tobytes())
        self._texts.add(
            example=example, start=self._written, size=len(ids), characters=characters, line=line, position=position
        )
        self._written += len(ids)

    def _save_tokens(self, starts: Numbers, sizes: Numbers) -> None:
        """The ids of the texts, in the examples' order; neither file is ever in memory whole."""
        with open(self._folder / "tokens.npy", "wb") as target:
            header = {"descr": np.dtype("i4").str, "fortran_order": False, "shape": (self._written,)}
            np.lib.format.write_array_header_2_0(target, header)
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                self._raw.seek(4 * start)
                target.write(self._raw.read(4 * size))

    def _save(self, name: str, values: Numbers) -> None:
        np.save(self._folder / f"{name}.npy", values)


def places_of(judged: JudgedRanking) -> list[int]:
    """The places of a ranking, each once, in order."""
    return list(dict.fromkeys([*(place for tier in judged.tiers for place in tier), *judged.unranked]))


def _starts(sizes: Numbers) -> Numbers:
    """Where runs of these sizes begin, and the end of the last."""
    return np.concatenate([np.zeros(1, "i8"), np.cumsum(sizes, dtype="i8")])


def _expand(starts: Numbers, sizes: Numbers) -> Numbers:
    """The positions start, start + 1, … of each run, one run after the other."""
    ends = _starts(sizes)
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], sizes)
    expanded: Numbers = np.repeat(starts, sizes) + within
    return expanded


def _longest(sizes: Numbers, example_text: Numbers) -> Numbers:
    """Tokens of each example's prompt (its first text) with its longest response."""
    if len(example_text) < 2:
        return np.zeros(0, "i8")
    first = example_text[:-1]
    responses = sizes.astype("i8").copy()
    responses[first] = 0
    longest: Numbers = sizes[first] + np.maximum.reduceat(responses, first)
    return longest


def digest_of(*parts: str) -> bytes:
    """16 bytes that name a text (or several, told apart) for as long as the arrays are built."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()
