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
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from training.core.dataset import Dataset, Numbers
from training.core.errors import UsageError
from training.core.examples import JudgedRanking, pairs_of
from training.core.files import published_folder, read_json, write_json
from training.core.records import SPLITS, RankingRecord, Response, Snapshot
from training.core.split_writer import Names, SplitWriter, TextEncoder, digest_of, places_of
from training.core.tokens import ChatEncoder

LAYOUT = 4  # of the files in the cache
CACHE_VARIABLE, CACHE_ENTRIES = "PLACKETT_CACHE", 16
LEFTOVER_SECONDS = 86_400  # after which an unfinished entry belongs to a process that was killed


@dataclass(frozen=True)
class Rules:
    """What is kept of a snapshot.

    ``ties`` and ``below`` as in ``pairs_of``: a ranking without a pair is dropped, and unranked responses are encoded
    only where they count. In the held-out splits ties always count: what people agree on must not depend on a loss.
    ``everything`` keeps rankings without a pair too, and all responses, to be scored. ``max_length`` is in tokens of
    prompt and response together. ``half`` keeps, of the train split, the split groups of one half: ``first``,
    ``second`` or ``all``.
    """

    splits: tuple[str, ...]
    max_length: int
    ties: bool = False
    below: bool = False
    everything: bool = False
    half: str = "all"


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
    dropped, names, spread = Counter(snapshot.dropped), Names(), _Spread()
    writers = {split: SplitWriter(folder / split, names) for split in rules.splits}
    texts = TextEncoder(encoder, rules.max_length)
    for record in snapshot.rankings():
        spread.add(record.split_group, record.split)
        if record.split not in writers:
            dropped[f"{record.split}_split"] += 1
            continue
        if record.split == "train" and rules.half not in ("all", half_of(record.split_group)):
            dropped["other_half"] += 1
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


def half_of(group: str) -> str:
    """``first`` or ``second``: the half of a split group, by its hash, the same in every file."""
    return ("first", "second")[digest_of(group)[-1] & 1]


def _take(record: RankingRecord, writer: SplitWriter, texts: TextEncoder, rules: Rules) -> str | None:
    """Add a ranking to its split; the reason why it is dropped instead, if it is."""
    shown = [texts.shown(response) for response in record.responses]
    rules = replace(rules, ties=rules.ties or record.split != "train")
    judged = _judged(record, shown, below=rules.below or rules.everything)
    if not _says_something(judged, rules):
        return "no_pairs"
    try:
        fits = {place: texts.fits(record.prompt, shown[place]) for place in places_of(judged)}
        short = replace(judged, unranked=tuple(place for place in judged.unranked if fits[place]))
        # What loses its last pair with a long unranked response is dropped for the length.
        if not all(fits[place] for tier in judged.tiers for place in tier) or not _says_something(short, rules):
            return "too_long"
        writer.cut += len(judged.unranked) - len(short.unranked)
        writer.add(record, short, shown, texts, pairs=len(pairs_of(short, ties=rules.ties, below=rules.below)))
    except UsageError as error:
        raise UsageError(f"line {record.line}: {error}") from None
    return None


def _says_something(judged: JudgedRanking, rules: Rules) -> bool:
    if rules.everything:
        return bool(places_of(judged))
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


class _Spread:
    """Which split groups stand in which splits: 8 bytes a ranking."""

    def __init__(self) -> None:
        self._seen = array("q")

    def add(self, group: str, split: str) -> None:
        # The low bits of a hash make room for the split.
        self._seen.append(int.from_bytes(digest_of(group)[:8], "big", signed=True) & ~3 | SPLITS.index(split))

    def shared(self) -> int:
        """How many groups stand in more than one split."""
        groups = np.unique(np.frombuffer(self._seen, "i8")) & ~3 if self._seen else np.zeros(0, "i8")
        return int((np.unique(groups, return_counts=True)[1] > 1).sum())
