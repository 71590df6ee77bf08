"""What of a run is in the store: pictures of its output folder, each with a manifest that is written last.

    PREFIX/files/SHA256                    a file, named by what it holds: sent once, however many pictures show it
    PREFIX/manifests/ATTEMPT-STEP.json     the folder as it was when the checkpoint of that step was the newest
    PREFIX/manifests/ATTEMPT-result.json   the folder of a run that came to its end

A picture is there when its manifest is; a half one is never seen. Each attempt writes manifests of its own, so one that
was lost and wakes up harms nothing of the next one's.
"""

import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from training.store.errors import NotThere, StoreAway
from training.store.patience import Check

if TYPE_CHECKING:
    from training.store.objects import ObjectStore

FORMAT = "plackett-run/1"
CHECKPOINTS, MANIFEST = "checkpoints", "manifest.json"
RESULT = "result"
# In a run's folder on a worker's disk: the attempt that wrote there last. Without it, the folder is the only copy.
TURN_NAME = "turn"
# Of one process or one moment: no part of a picture.
PASSING = ("*.tmp", "*.part", "*.lock", ".*", "cache")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a picture; `path` is below the output folder, with slashes."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A picture of a run's output folder; `step` is None of a run that came to its end."""

    attempt: int
    step: int | None
    files: tuple[StoredFile, ...]

    @property
    def name(self) -> str:
        """Of its manifest; the newest picture has the last name of its kind."""
        return f"{self.attempt:06d}-{RESULT if self.step is None else f'{self.step:012d}'}.json"

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints in it, the newest first."""
        found = {one.path.split("/")[1] for one in self.files if one.path.startswith(f"{CHECKPOINTS}/step-")}
        return sorted((int(name.removeprefix("step-")) for name in found), reverse=True)

    def only_with(self, steps: Collection[int]) -> "Bundle":
        """The same picture without its other checkpoints."""
        gone = tuple(f"{CHECKPOINTS}/step-{step}/" for step in self.checkpoints if step not in steps)
        return replace(self, files=tuple(one for one in self.files if not one.path.startswith(gone)))

    def size_of(self, step: int) -> int:
        """Bytes of one of its checkpoints."""
        return sum(one.size_bytes for one in self.files if one.path.startswith(f"{CHECKPOINTS}/step-{step}/"))

    def as_json(self) -> bytes:
        files = [asdict(one) for one in self.files]
        return json.dumps({"format": FORMAT, "attempt": self.attempt, "step": self.step, "files": files}).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Bundle":
        """The picture that a manifest describes.

        Raises:
            ValueError: it is none of ours.
        """
        try:
            plain = json.loads(content)
            if plain["format"] != FORMAT:
                raise ValueError(f"not of the format {FORMAT}")
            return cls(plain["attempt"], plain["step"], from_plain(plain["files"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a manifest that cannot be read: {error}") from error


class RunStore:
    """The part of the store that belongs to one run."""

    def __init__(self, store: "ObjectStore", prefix: str) -> None:
        self.store, self.prefix = store, prefix
        self._sent: set[str] = set()

    def key(self, file: StoredFile) -> str:
        """The name of the object that holds the file."""
        return f"{self.prefix}/files/{file.sha256}"

    # --- pictures ----------------------------------------------------------------------------------------------------

    def bundles(self) -> list[Bundle]:
        """The pictures with a checkpoint, the newest first: by attempt, then by step. Unreadable ones are left out."""
        names = [name for name, _ in self.store.names(f"{self.prefix}/manifests/") if RESULT not in name]
        return [one for one in map(self._read, sorted(names, reverse=True)) if one is not None]

    def _read(self, name: str) -> Bundle | None:
        try:
            return Bundle.from_json(self.store.read(name))
        except (NotThere, ValueError):
            return None

    # --- putting there -----------------------------------------------------------------------------------------------

    def publish(
        self, folder: Path, *, attempt: int, step: int | None, check: Check, is_ours: Callable[[], bool]
    ) -> Bundle | None:
        """Puts a picture of the folder into the store; None if the run was somebody else's by the end of it.

        Args:
            step: of the newest checkpoint; None leaves the checkpoints out, as of a finished run.
            is_ours: asked before the manifest is written.

        Raises:
            FileNotFoundError: a checkpoint was removed meanwhile; there is a newer one by now.
            StoreError: not all of it could be sent; what was sent stays.
        """
        with ExitStack() as opened:
            found = list(_open_all(folder, opened, checkpoints=step is not None))
            files = [stored for stored, _ in found]
            for stored, file in found:
                check()
                if stored.sha256 not in self._sent:
                    self.store.send(self.key(stored), file, size=stored.size_bytes, sha256=stored.sha256, check=check)
                    self._sent.add(stored.sha256)
        self._see_that_all_are_there(files)
        bundle = Bundle(attempt, step, tuple(files))
        if not is_ours():
            return None
        self.store.write(f"{self.prefix}/manifests/{bundle.name}", bundle.as_json())
        return bundle

    def _see_that_all_are_there(self, files: Iterable[StoredFile]) -> None:
        """An attempt that was lost and wakes up in the middle of tidying may have removed what no manifest named yet.

        Raises:
            StoreAway: some are gone; they are sent the next time.
        """
        there = dict(self.store.names(f"{self.prefix}/files/"))
        gone = {one.sha256 for one in files if there.get(self.key(one)) != one.size_bytes}
        self._sent -= gone
        if gone:
            raise StoreAway(f"{len(gone)} files were removed from {self.store.address}/{self.prefix} meanwhile.")

    # --- bringing back -----------------------------------------------------------------------------------------------

    def bring(self, files: Iterable[StoredFile], target: Path, *, check: Check) -> None:
        """Makes a folder of files that appears when all of them are there and right, in the place of what was there.

        What an earlier attempt brought beside it is gone on with.

        Raises:
            Damaged, NotThere, StoreError, OSError: one could not be brought.
        """
        wanted = list(files)
        draft = _draft_of(target, wanted)
        draft.mkdir(parents=True, exist_ok=True)
        for file in wanted:
            check()
            place = draft / file.path
            if not place.is_file():
                self.store.fetch(self.key(file), place, size=file.size_bytes, sha256=file.sha256, check=check)
        if target.exists():
            shutil.rmtree(target)
        os.rename(draft, target)

    # --- removing ----------------------------------------------------------------------------------------------------

    def keep(self, bundles: Iterable[Bundle], *, result: Bundle | None = None) -> int:
        """Removes every picture but these, and the files that none of these shows; returns how many bytes that freed.

        Manifests go first: a picture without all its files is never seen.
        """
        kept = [*bundles, *([result] if result else [])]
        names = {f"{self.prefix}/manifests/{one.name}" for one in kept}
        self.store.remove(name for name, _ in self.store.names(f"{self.prefix}/manifests/") if name not in names)
        shown = {self.key(file) for one in kept for file in one.files}
        unseen = {name: size for name, size in self.store.names(f"{self.prefix}/files/") if name not in shown}
        self.store.remove(unseen)
        self._sent -= {name.rpartition("/")[2] for name in unseen}
        return sum(unseen.values())

    def rewrite(self, bundle: Bundle) -> None:
        """Writes the manifest of a picture anew, after some of its files are wanted no more. Of a run that is over."""
        self.store.write(f"{self.prefix}/manifests/{bundle.name}", bundle.as_json())


def _draft_of(target: Path, files: Iterable[StoredFile]) -> Path:
    """Where a folder of just these files is made; what was begun there for other files is removed."""
    told = "\n".join(f"{one.path} {one.sha256}" for one in files)
    draft = target.with_name(f"{target.name}.{hashlib.sha256(told.encode()).hexdigest()[:16]}.part")
    for other in target.parent.glob(f"{target.name}.*.part"):
        if other != draft:
            shutil.rmtree(other, ignore_errors=True)
    return draft


def _open_all(folder: Path, opened: ExitStack, *, checkpoints: bool) -> Iterator[tuple[StoredFile, BinaryIO]]:
    """Every file of the picture, opened: what the trainer removes or replaces meanwhile can be read to its end.

    Checkpoints come before the files beside them: measurements are written before the checkpoint that follows them, so
    those looked at last hold every step of the checkpoints.
    """
    paths = sorted(_walk(folder, checkpoints=checkpoints), key=lambda path: (not _is_of_checkpoint(folder, path), path))
    sums = dict[Path, str]()
    found = []
    for path in paths:
        file = opened.enter_context(path.open("rb"))
        if _is_of_checkpoint(folder, path) and path.name == MANIFEST:
            sums |= {path.with_name(name): value for name, value in json.load(file)["sha256"].items()}
        found.append((path, file, os.fstat(file.fileno()).st_size))
    for path, file, size in found:
        digest = sums.get(path) or _digest(file, size)
        yield StoredFile(path.relative_to(folder).as_posix(), size, digest), file


def _walk(folder: Path, *, checkpoints: bool) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_symlink() or any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in PASSING):
            continue
        if entry.is_file():
            yield Path(entry.path)
        elif checkpoints or entry.name != CHECKPOINTS:
            yield from _walk(Path(entry.path), checkpoints=checkpoints)


def _is_of_checkpoint(folder: Path, path: Path) -> bool:
    return path.relative_to(folder).parts[0] == CHECKPOINTS


def _digest(file: BinaryIO, size: int) -> str:
    """Of the first bytes: a file that grows meanwhile is pictured as it was."""
    digest, left = hashlib.sha256(), size
    file.seek(0)
    while left and (block := file.read(min(1 << 20, left))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def local_checkpoints(output: Path) -> list[int]:
    """The steps of the checkpoints published in an output folder, the newest first."""
    try:
        names = [entry.name.removeprefix("step-") for entry in os.scandir(output / CHECKPOINTS) if entry.is_dir()]
    except OSError:
        return []
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def from_plain(values: Iterable[dict[str, Any]]) -> tuple[StoredFile, ...]:
    """Files as `plain` gave them.

    Raises:
        ValueError: one would lie outside its folder.
    """
    files = tuple(StoredFile(**one) for one in values)
    for one in files:
        parts = PurePosixPath(one.path).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise ValueError(f"{one.path!r} is no path below a folder")
    return files


def plain(files: Iterable[StoredFile]) -> list[dict[str, Any]]:
    """Files as the database keeps them."""
    return [asdict(one) for one in files]
