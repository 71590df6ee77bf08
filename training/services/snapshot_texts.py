"""How much text a snapshot holds, counted from its file: all of a small one, an even sample of a large one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from django.core.files.storage import default_storage

from annotate.models import Snapshot
from training.core.text_counts import SplitTexts, count_texts

# What is read at most in a request, in pieces of an even distance: some 0.1 s.
MOST_BYTES = 8 * 2**20
PIECE_BYTES = MOST_BYTES // 32


@dataclass(frozen=True)
class SnapshotTexts:
    """Texts by split; ``exact`` unless they are told from a sample, in which each ranking counts as a prompt of its
    own where the others of its prompt were not seen."""

    splits: Mapping[str, SplitTexts]
    exact: bool


def texts_of(snapshot: Snapshot, *, bytewise: bool) -> SnapshotTexts | None:
    """The snapshot's texts in about as many tokens; None where its file cannot be read. Counted once in a process: a
    frozen file never changes.

    Args:
        bytewise: see ``training.core.text_counts``.
    """
    try:
        return _counted(snapshot.file, snapshot.size_bytes, snapshot.sha256, bytewise)
    except OSError:
        return None


@lru_cache(maxsize=32)
def _counted(name: str, size: int, sha256: str, bytewise: bool) -> SnapshotTexts:
    pieces = list(_pieces(name, size))
    read = sum(map(len, pieces))
    found = count_texts((line for piece in pieces for line in piece.splitlines()), bytewise=bytewise)
    if size <= MOST_BYTES:
        return SnapshotTexts(found, True)
    factor = size / max(read, 1)
    return SnapshotTexts({split: texts.times(factor) for split, texts in found.items()}, False)


def _pieces(name: str, size: int) -> Iterator[bytes]:
    """Whole lines: all of them, or those of pieces at even distances."""
    with default_storage.open(name, "rb") as file:
        if size <= MOST_BYTES:
            yield file.read()
            return
        for start in range(0, size - PIECE_BYTES, size // (MOST_BYTES // PIECE_BYTES)):
            file.seek(start)
            piece = file.read(PIECE_BYTES)
            begin = piece.find(b"\n") + 1 if start else 0
            yield piece[begin : piece.rfind(b"\n") + 1]
