"""Folders for unix sockets: mode 0700, and short enough for the kernel."""

import os
import re
import sys
import tempfile
from pathlib import Path

from webapp.stack.accounts import Account

# sun_path holds 108 bytes on Linux and 104 on macOS and the BSDs, the closing NUL included.
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_REMEMBERED = "socket-folder"


def socket_dir_of(data_dir: Path) -> Path:
    """The folder of the server's socket: `run` in the data folder, or the one remembered there."""
    remembered = data_dir.resolve() / _REMEMBERED
    if remembered.exists():
        return Path(remembered.read_text().strip())
    return data_dir.resolve() / "run"


def make_socket_dir(data_dir: Path, *, asked: Path | None, socket_name: str, account: Account) -> Path:
    """Makes the folder for a server's socket; where its path is too long or odd, a temporary one, remembered.

    Args:
        data_dir: the server's own folder, already made.
        asked: a folder to use instead of `run` in the data folder.
        socket_name: the file name that the server gives its socket.
    """
    folder = asked.absolute() if asked else socket_dir_of(data_dir)
    if not _is_usable(folder / socket_name) or _is_foreign(folder, account):
        folder = Path(tempfile.mkdtemp(prefix="plackett-", dir="/tmp"))
        account.own(folder)
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
        account.own(folder)
    remembered = data_dir / _REMEMBERED
    if folder == data_dir / "run":
        remembered.unlink(missing_ok=True)
    else:
        remembered.write_text(f"{folder}\n")
    return folder


def _is_usable(socket: Path) -> bool:
    # libpq reads a comma as the start of a second host; the rest would have to survive four different URL readers.
    return (
        len(os.fsencode(socket)) <= MAX_SOCKET_PATH and re.fullmatch(r"[\w/.+@ -]+", str(socket), re.ASCII) is not None
    )


def _is_foreign(folder: Path, account: Account) -> bool:
    """Whether the remembered folder is somebody else's or open to others by now: /tmp is cleaned, names come again."""
    if not folder.exists():
        return False
    status = folder.lstat()
    return status.st_uid != account.uid or bool(status.st_mode & 0o077)
