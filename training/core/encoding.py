"""From a snapshot and a tokenizer to the arrays of ``training.core.dataset``: built once, then found by hash.

Entries of the cache are named by what they depend on (the snapshot's hash, tokenizer, template, what is kept), so that
an ensemble, a resume and the next run on the same snapshot encode nothing again.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import IO

import numpy as np

from training.core.dataset import UNRANKED, Dataset, Numbers
from training.core.errors import UsageError
from training.core.examples import JudgedRanking, pairs_of
from training.core.files import published_folder, read_json, write_json
from training.core.records import SPLITS, Message, RankingRecord, Response, Snapshot
from training.core.tokens import ChatEncoder, EncodedPrompt

LAYOUT = 4  # of the files in the cache
CACHE_VARIABLE, CACHE_ENTRIES = "PLACKETT_CACHE", 16
LEFTOVER_SECONDS = 86_400  # after which an unfinished entry belongs to a process that was killed
PROMPTS_AT_HAND = 64


@dataclass(frozen=True)
class Rules:
    """What is kept of a snapshot.

    ``ties`` and ``below`` as in ``pairs_of``: a ranking without a pair is dropped, and unranked responses are encoded
    only where they count. In the held-out splits ties always count: what people agree on must not depend on a loss.
    ``everything`` keeps rankings without a pair too, and all responses, to be scored. ``max_length`` is in tokens of
    prompt and response together.
    """

    splits: tuple[str, ...]
    max_length: int
    ties: bool = False
    below: bool = False
    everything: bool = False


@dataclass(frozen=True)
class Encoded:
    """The splits of a snapshot, ready to train from, and what became of the rest.

    ``dropped`` counts rankings by reason, the snapshot's own reasons included. ``defused`` counts texts that hold
    control tokens: messages of prompts and responses, each once per example, those of dropped rankings not at all.
    ``cut`` counts, ranking by ranking, the unranked responses that were too long and are left out of a ranking that is
    used. ``shared_groups`` counts the split groups of the file with rankings in more than one split, read or not.
    """

    splits: dict[str, Dataset]
    dropped: Counter[str]
    defused: int
    found: bool
    cut: int = 0
    shared_groups: int = 0


def encode_snapshot(snapshot: Snapshot, encoder: ChatEncoder, rules: Rules, *, roots: Sequence[Path]) -> Encoded:
    """The splits of a snapshot from the cache, built and put there if they are not in it.

    Several processes may build one entry at a time: each keeps what it built, and the first one's is published.

    Args:
        roots: folders for the cache. All are looked in; the first that can be written is written to.

    Raises:
        UsageError: a text that cannot be encoded (the message names its line), or no folder that can be written.
    """
    key = cache_key(snapshot, encoder, rules)
    for root in roots:
        if (kept := _open(root / key, rules)) is not None:
            # Another account's entry cannot be marked as used.
            with suppress(OSError):
                os.utime(root / key)
            return kept
    root = _writable(roots)
    own = root / f"{key}.{secrets.token_hex(4)}.tmp"
    try:
        with published_folder(own) as scratch:
            _build(snapshot, encoder, rules, scratch)
    except BaseException:
        shutil.rmtree(own.with_name(own.name + ".tmp"), ignore_errors=True)
        raise
    built = _open(own, rules)
    if built is None:
        raise UsageError(f"the tokenised data in {own} cannot be read back")
    _publish(own, root / key, rules)
    _prune(root)
    return replace(built, found=False)


def cache_roots(output: Path) -> list[Path]:
    """Where tokenised data may lie: the folder that PLACKETT_CACHE names, else the user's cache, else the output."""
    if named := os.environ.get(CACHE_VARIABLE):
        return [Path(named), output / "cache"]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [Path(home) / "plackett" / "tokenised", output / "cache"]


def cache_key(snapshot: Snapshot, encoder: ChatEncoder, rules: Rules) -> str:
    """A hash of all that the arrays depend on, with today's date if the chat template reads the clock."""
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else json.dumps(encoder.tokenizer.get_vocab(), sort_keys=True)
    template = str(encoder.tokenizer.chat_template)
    parts = [
        str(LAYOUT), snapshot.sha256, words, template, str(encoder.show_thinking),
        json.dumps(encoder.tokenizer.special_tokens_map, default=str, sort_keys=True), json.dumps(asdict(rules)),
        date.today().isoformat() if "strftime_now" in template else "",
    ]  # fmt: skip
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()[:32]


def _open(folder: Path, rules: Rules) -> Encoded | None:
    """What a folder of the cache holds; None where it is absent or not whole."""
    meta = read_json(folder / "meta.json")
    try:
        splits = {split: Dataset(_mapped(folder / split, meta["arrays"][split]), meta["annotators"])
                  for split in rules.splits}  # fmt: skip
        return Encoded(
            splits, Counter(meta["dropped"]), meta["defused"], found=True, cut=meta["cut"],
            shared_groups=meta["shared_groups"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _mapped(folder: Path, sizes: dict[str, int]) -> dict[str, Numbers]:
    """The arrays whose files were written with these sizes in bytes.

    Raises:
        OSError, ValueError: one is absent, or not whole.
    """
    arrays = {}
    for name, size in sizes.items():
        path = folder / f"{name}.npy"
        if path.stat().st_size != size:
            raise ValueError(f"{path} is not of {size} bytes")
        arrays[name] = np.load(path, mmap_mode="r")
    return arrays


def _publish(own: Path, target: Path, rules: Rules) -> None:
    """Put a finished entry in its place, unless a whole one stands there; who has either mapped keeps reading it."""
    for _ in range(2):
        try:
            own.rename(target)
            return
        except OSError:
            if _open(target, rules) is not None:
                break
            _remove(target)
    shutil.rmtree(own, ignore_errors=True)


def _remove(entry: Path) -> None:
    """Take an entry away by name first, so that nobody ever meets half of one."""
    away = entry.with_name(f"{entry.name}.{secrets.token_hex(4)}.tmp")
    with suppress(OSError):
        entry.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def _writable(roots: Sequence[Path]) -> Path:
    for root in roots:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(root, os.W_OK | os.X_OK):
            return root
    raise UsageError(f"no folder for tokenised data can be written: tried {', '.join(map(str, roots))}")


def _prune(root: Path) -> None:
    """Remove all but the entries used last, and what killed processes left; other things in the folder stay."""
    used: dict[Path, float] = {}
    for path in root.iterdir():
        # Others prune at the same time: what stood here a moment ago may be gone.
        with suppress(OSError):
            if re.fullmatch("[0-9a-f]{32}", path.name):
                used[path] = path.stat().st_mtime
            elif re.match(r"[0-9a-f]{32}\.", path.name) and time.time() - _last_written(path) > LEFTOVER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
    for old in sorted(used, key=lambda path: -used[path])[CACHE_ENTRIES:]:
        _remove(old)


def _last_written(folder: Path) -> float:
    """When something in a folder was last written, in seconds."""
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


# --- building ---------------------------------------------------------------------------------------------------------


def _build(snapshot: Snapshot, encoder: ChatEncoder, rules: Rules, folder: Path) -> None:
    """Encode the rankings of the wanted splits, in the file's order, into ``folder``."""
    dropped, names, spread = Counter(snapshot.dropped), _Names(), _Spread()
    writers = {split: _SplitWriter(folder / split, names) for split in rules.splits}
    texts = _TextEncoder(encoder, rules.max_length)
    for record in snapshot.rankings():
        spread.add(record.split_group, record.split)
        if record.split not in writers:
            dropped[f"{record.split}_split"] += 1
            continue
        reason = _take(record, writers[record.split], texts, rules)
        if reason:
            dropped[reason] += 1
    for writer in writers.values():
        writer.finish()
    meta = {
        "dropped": dropped, "annotators": list(names.annotators), "shared_groups": spread.shared(),
        "defused": sum(writer.defused for writer in writers.values()),
        "cut": sum(writer.cut for writer in writers.values()),
        "arrays": {split: {path.stem: path.stat().st_size for path in (folder / split).glob("*.npy")}
                   for split in writers},
    }  # fmt: skip
    write_json(folder / "meta.json", meta)


def _take(record: RankingRecord, writer: "_SplitWriter", texts: "_TextEncoder", rules: Rules) -> str | None:
    """Add a ranking to its split; the reason why it is dropped instead, if it is."""
    shown = [texts.shown(response) for response in record.responses]
    rules = replace(rules, ties=rules.ties or record.split != "train")
    judged = _judged(record, shown, below=rules.below or rules.everything)
    if not _says_something(judged, rules):
        return "no_pairs"
    try:
        fits = {place: texts.fits(record.prompt, shown[place]) for place in _places(judged)}
        short = replace(judged, unranked=tuple(place for place in judged.unranked if fits[place]))
        # What loses its last pair with a long unranked response is dropped for the length.
        if not all(fits[place] for tier in judged.tiers for place in tier) or not _says_something(short, rules):
            return "too_long"
        writer.cut += len(judged.unranked) - len(short.unranked)
        writer.add(record, short, shown, texts, rules)
    except UsageError as error:
        raise UsageError(f"line {record.line}: {error}") from None
    return None


def _says_something(judged: JudgedRanking, rules: Rules) -> bool:
    if rules.everything:
        return bool(_places(judged))
    return bool(pairs_of(judged, ties=rules.ties, below=rules.below))


def _judged(record: RankingRecord, shown: Sequence[Response], *, below: bool) -> JudgedRanking:
    """The ranking over the line's responses, those of one text under the place of the first."""
    first = {response: place for place, response in reversed(list(enumerate(shown)))}

    def places(members: Iterable[int]) -> tuple[int, ...]:
        return tuple(first[shown[member]] for member in members)

    return JudgedRanking(
        tiers=tuple(places(tier) for tier in record.tiers),
        unranked=places(record.unranked) if below else (),
        strengths=record.strengths,
        weight=record.weight,
        machine=record.machine,
    )


def _places(judged: JudgedRanking) -> list[int]:
    """The places of a ranking, each once, in order."""
    return list(dict.fromkeys([*(place for tier in judged.tiers for place in tier), *judged.unranked]))


class _Names:
    """Numbers instead of names, the same in all splits."""

    def __init__(self) -> None:
        self.annotators: dict[str, int] = {}
        self._groups: dict[bytes, int] = {}
        self._tasks: dict[bytes, int] = {}

    def annotator(self, name: str | None) -> int:
        return -1 if name is None else self.annotators.setdefault(name, len(self.annotators))

    def task(self, name: str | None) -> int:
        return -1 if name is None else self._tasks.setdefault(_digest(name), len(self._tasks))

    def group(self, name: str) -> int:
        return self._groups.setdefault(_digest(name), len(self._groups))


class _Spread:
    """Which split groups stand in which splits: 8 bytes a ranking."""

    def __init__(self) -> None:
        self._seen = array("q")

    def add(self, group: str, split: str) -> None:
        # The low bits of a hash make room for the split.
        self._seen.append(int.from_bytes(_digest(group)[:8], "big", signed=True) & ~3 | SPLITS.index(split))

    def shared(self) -> int:
        """How many groups stand in more than one split."""
        groups = np.unique(np.frombuffer(self._seen, "i8")) & ~3 if self._seen else np.zeros(0, "i8")
        return int((np.unique(groups, return_counts=True)[1] > 1).sum())


@dataclass
class _AtHand:
    """An encoded prompt and the responses behind it, each with the number of its texts that hold control tokens."""

    prompt: EncodedPrompt
    defused: int
    responses: dict[Response, tuple[tuple[int, ...], int]] = field(default_factory=dict)


class _TextEncoder:
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


class _SplitWriter:
    """One split on its way to disk: ids in the order in which they come, put in the examples' order at the end.

    ``defused`` and ``cut`` count as in ``Encoded``.
    """

    def __init__(self, folder: Path, names: _Names) -> None:
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
        texts: _TextEncoder,
        rules: Rules,
    ) -> None:
        """Add a ranking, with the texts that are new."""
        example = self._example(record, texts)
        places = {place: self._place(example, record, place, shown[place], texts) for place in _places(judged)}
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
            pairs=len(pairs_of(judged, ties=rules.ties, below=rules.below)),
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

    def _example(self, record: RankingRecord, texts: _TextEncoder) -> int:
        messages = (part for message in record.prompt for part in (message.role, message.content))
        key = _digest(record.split_group, *messages)
        if key not in self._examples:
            self._examples[key] = len(self._examples)
            self._responses.append({})
            self._groups.append(self._names.group(record.split_group))
            ids, defused = texts.prompt(record.prompt)
            self.defused += defused
            self._write(self._examples[key], ids, line=record.line)
        return self._examples[key]

    def _place(
        self, example: int, record: RankingRecord, position: int, response: Response, texts: _TextEncoder
    ) -> int:
        known = self._responses[example]
        key = _digest(response.text, response.thinking or "")
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


def _digest(*parts: str) -> bytes:
    """16 bytes that name a text (or several, told apart) for as long as the arrays are built."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()
