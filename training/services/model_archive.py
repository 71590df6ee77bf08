"""A model to take away: its folder as a tar archive that is made while it is sent, or as a copy that was checked.

Both hold the folder's files as they are and SHA256SUMS, which `sha256sum -c` reads. The archive is uncompressed
(weights do not compress), and its length is known before its first byte, so that whoever gets less of it knows. Only
one block of a file is in memory at a time.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from training.selectors_models import SUMS_NAME, ModelFile
from training.store.errors import StoreAway, StoreError
from training.store.opening import open_store

BLOCK_BYTES = 1 << 20
TRIES = 4
DIGEST_CHARACTERS = hashlib.sha256().digest_size * 2

Progress = Callable[[int], object]


class Broken(Exception):
    """A file is not as long as it was, or a copy is not like what was copied; the message says which."""


# --- as an archive ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar archive of some files below one folder; `size_bytes` is how many bytes `blocks` gives."""

    folder: str
    files: Sequence[ModelFile]
    modified_at: int

    @property
    def size_bytes(self) -> int:
        """Of the whole archive, its end included."""
        lengths = [(one.name, one.size_bytes) for one in self.files]
        lengths.append((SUMS_NAME, len(_sums((one.name, "0" * DIGEST_CHARACTERS) for one in self.files))))
        return sum(len(self._head(name, size)) + size + _padding(size) for name, size in lengths) + _END

    def blocks(self) -> Iterator[bytes]:
        """The archive from its start; the sums come last, because they are taken while the files go by.

        Raises:
            Broken, OSError: a file was changed or removed meanwhile. What was given until then is no whole archive.
        """
        sums = []
        for one in self.files:
            digest = hashlib.sha256()
            yield self._head(one.name, one.size_bytes)
            for block in _read(one):
                digest.update(block)
                yield block
            yield bytes(_padding(one.size_bytes))
            sums.append((one.name, digest.hexdigest()))
        told = _sums(sums)
        yield self._head(SUMS_NAME, len(told)) + told + bytes(_padding(len(told))) + bytes(_END)

    def _head(self, name: str, size: int) -> bytes:
        told = tarfile.TarInfo(f"{self.folder}/{name}")
        told.size, told.mtime, told.mode = size, self.modified_at, 0o644
        return told.tobuf(tarfile.PAX_FORMAT)


_END = 2 * tarfile.BLOCKSIZE


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE


def _sums(digests: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in digests).encode()


def _read(one: ModelFile) -> Iterator[bytes]:
    """Exactly as many bytes as were promised.

    Raises:
        Broken: there are fewer, or those from the bucket are not what was put there; of them the last one is held back.
    """
    digest, left = hashlib.sha256(), one.size_bytes
    for block in _from_disk(one.path, left) if one.path is not None else _from_bucket(one.key):
        block = block[:left]
        left -= len(block)
        if one.sha256:
            digest.update(block)
            if not left and digest.hexdigest() != one.sha256:
                raise Broken(f"{one.key} in the artifact store is not what was put there.")
        yield block
    if left:
        raise Broken(f"{one.path or one.key} has {left} bytes fewer than it had.")


def _from_disk(path: Path, size: int) -> Iterator[bytes]:
    with _open(path) as file:
        while size and (block := file.read(min(BLOCK_BYTES, size))):
            size -= len(block)
            yield block


def _from_bucket(key: str) -> Iterator[bytes]:
    """The object's bytes; a connection that breaks is opened again behind what came.

    Raises:
        Broken: it cannot be read.
    """
    store, done, tries = open_store(), 0, TRIES
    if store is None:
        raise Broken(f"{key} is in a bucket, and artifacts are in a folder here.")
    while True:
        try:
            for block in store.blocks(key, start=done):
                done += len(block)
                yield block
            return
        except StoreAway as error:
            tries -= 1
            if not tries:
                raise Broken(str(error)) from error
        except StoreError as error:
            raise Broken(str(error)) from error


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


# --- as a copy -------------------------------------------------------------------------------------------------------


def copy_model(files: Sequence[ModelFile], target: Path, *, progress: Progress) -> None:
    """Writes the files into a new folder, reads each again, and gives the folder its name only when all of it is right.

    Args:
        target: does not exist, or is empty.
        progress: called with the number of bytes copied since the last call.

    Raises:
        Broken, OSError: nothing of the target was made; what was begun beside it is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        draft.chmod(0o755)  # of an ordinary folder, not of a secret one
        sums = [(one.name, _copy(one, draft / one.name, progress)) for one in files]
        (draft / SUMS_NAME).write_bytes(_sums(sums))
        for name, digest in sums:
            if _digest(draft / name) != digest:
                raise Broken(f"{draft / name} was not written as it was read.")
        os.rename(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _copy(one: ModelFile, target: Path, progress: Progress) -> str:
    """Copies a file to the disk and returns its sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as copy:
        for block in _read(one):
            digest.update(block)
            copy.write(block)
            progress(len(block))
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
