"""Files that are either whole or absent, whatever happens to the process that writes them."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_no_room(error: BaseException) -> bool:
    """Whether an error says that the disk, a quota or the largest size of a file is used up. Some writers raise errors
    of their own, which quote the system's words."""
    told = str(error)
    return getattr(error, "errno", None) in FULL or any(os.strerror(number) in told for number in FULL)


def shown_name(model: str) -> str:
    """What a model is called in titles: a hub id as it is; of a folder its name, of a run's model the run's, too."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    return f"{folder.parent.name}/model" if folder.name == "model" and folder.parent.name else folder.name


@contextmanager
def published_folder(target: Path) -> Iterator[Path]:
    """Yield ``target``.tmp to fill; afterwards it is synced and renamed to ``target``, replacing what was there.

    What could not be written whole is removed: on a full disk it would take the room that the last word needs.
    """
    scratch = target.with_name(target.name + ".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        yield scratch
        for path in sorted(scratch.rglob("*")):
            # Some writers create files for the owner alone; another account's worker may have to read them.
            path.chmod(0o755 if path.is_dir() else 0o644)
            sync(path)
        sync(scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    if target.exists():
        shutil.rmtree(target)
    os.rename(scratch, target)
    sync(target.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by the JSON of ``value``, by rename.

    Raises:
        ValueError: the value holds NaN or infinity, which is not JSON.
    """
    scratch = path.with_name(path.name + ".tmp")
    try:
        scratch.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        sync(scratch)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    os.replace(scratch, path)
    sync(path.parent)


def read_json(path: Path) -> Any:
    """The JSON value of a file, or None where there is no readable one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def sync(path: Path) -> None:
    """Have the system write a file or a folder's names to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_fingerprint(name: str) -> str:
    """What tells two base models apart, wherever their folder lies: a hash of its small files and of the weights' sizes
    and ends; the name itself where it is no folder (a hub id)."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            with open(path, "rb") as file:
                head = file.read(1 << 20)
                file.seek(max(0, path.stat().st_size - (1 << 20)))
                digest.update(f"{path.name} {path.stat().st_size}".encode() + head + file.read())
        elif path.suffix in (".json", ".jinja", ".model", ".txt"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
