"""An export kept in a file that grows: each pull appends exactly what is new since the last one.

Beside FILE stands FILE.cursor, which says how far the export went and how long the file was then. It is replaced when
all that is new is safely on disk, so a pull that broke off leaves nothing behind that the next one does not cut away.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from plackett.client import Client
from plackett.errors import PlackettError, Refused


@dataclass(frozen=True)
class Saved:
    """What a file holds: an export of this project in this format, up to the cursor, in so many bytes."""

    server: str
    project: str
    format: str
    annotator_kinds: str | None
    cursor: str
    size_bytes: int
    options: Mapping[str, str] = field(default_factory=dict)


def pull_to_file(
    client: Client,
    project: str,
    path: Path,
    *,
    format: str = "plackett",
    annotator_kinds: str | None = None,
    options: Mapping[str, str] | None = None,
    restart: bool = False,
    progress: Callable[[int, int], object] = lambda lines, count: None,
) -> int:
    """Appends what is new to the file, or writes it whole the first time; returns how many lines came.

    In the format `plackett` lines of type `superseded` and `withdrawn` take earlier ones back; other formats cannot.

    Args:
        options: further ones of the export, such as {"ties": "both"}.
        restart: write it whole, whatever stands there.
        progress: called with how many lines came so far and how many there will be.

    Raises:
        PlackettError: the file is not what its cursor says, or Client's.
    """
    wanted = Saved(client.server, project, format, annotator_kinds, "", 0, dict(options or {}))
    known = None if restart else _read(path)
    if known is None and not restart and path.exists() and path.stat().st_size:
        raise PlackettError(f"{path} exists and has no cursor: name another file, or say --restart to replace it.")
    if known is not None:
        _check(known, wanted, path)
    begin = known.size_bytes if known else 0
    since = known.cursor if known else None
    try:
        return _pull(client, path, wanted, since=since, begin=begin, progress=progress)
    except Refused as refused:
        if since and (refused.code == "unknown_epoch" or "since" in refused.fields):
            raise PlackettError(f"{refused} Say --restart to write {path} whole.") from None
        raise


def _pull(
    client: Client,
    path: Path,
    wanted: Saved,
    *,
    since: str | None,
    begin: int,
    progress: Callable[[int, int], object],
) -> int:
    with client.export(
        wanted.project, format=wanted.format, since=since, annotator_kinds=wanted.annotator_kinds, **wanted.options
    ) as export:
        with open(path, "ab") as file:
            file.truncate(begin)  # what a pull that broke off left
            lines = 0
            for line in export.lines:
                file.write(line)
                lines += 1
                progress(lines, export.count)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        now = replace(wanted, cursor=export.cursor, size_bytes=size)
    _write(path, now)
    return lines


def _cursor_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.cursor")


def _read(path: Path) -> Saved | None:
    try:
        return Saved(**json.loads(_cursor_file(path).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise PlackettError(f"{_cursor_file(path)} cannot be read: delete it and {path}, or say --restart.") from None


def _check(known: Saved, wanted: Saved, path: Path) -> None:
    for name in ("server", "project", "format", "annotator_kinds", "options"):
        if getattr(known, name) != getattr(wanted, name):
            there, asked = getattr(known, name), getattr(wanted, name)
            raise PlackettError(f"{path} holds an export with {name} {there}, not {asked}: name another file.")
    if not path.exists() or path.stat().st_size < known.size_bytes:
        raise PlackettError(f"{path} is shorter than when it was last pulled: say --restart to write it anew.")


def _write(path: Path, saved: Saved) -> None:
    draft = path.with_name(f".{path.name}.cursor.{os.getpid()}")
    draft.write_text(json.dumps(asdict(saved)))
    os.replace(draft, _cursor_file(path))
