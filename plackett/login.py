"""Where the command finds its server and its token: the environment, else what `plackett login` kept, mode 600."""

import json
import os
from pathlib import Path

from plackett.errors import PlackettError


def credentials_file() -> Path:
    """PLACKETT_CREDENTIALS, else plackett/credentials.json in the user's configuration folder."""
    if named := os.environ.get("PLACKETT_CREDENTIALS"):
        return Path(named).expanduser()
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "plackett" / "credentials.json"


def keep(server: str, token: str) -> Path:
    """Writes both, for nobody else to read."""
    path = credentials_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"server": server, "token": token}, file)
    os.replace(draft, path)
    return path


def forget() -> bool:
    """Deletes what was kept; whether there was anything. The token itself stays good until it is revoked."""
    try:
        credentials_file().unlink()
    except FileNotFoundError:
        return False
    return True


def known(server: str = "") -> tuple[str, str]:
    """The server's address and a token for it.

    Args:
        server: asked for by the user; then a kept token is used only if it is this server's.

    Raises:
        PlackettError: there is none.
    """
    kept = _kept()
    address = (server or os.environ.get("PLACKETT_SERVER") or kept.get("server", "")).rstrip("/")
    token = os.environ.get("PLACKETT_TOKEN") or (kept.get("token", "") if kept.get("server") == address else "")
    if not address or not token:
        raise PlackettError("Say `plackett login SERVER` first, or set PLACKETT_SERVER and PLACKETT_TOKEN.")
    return address, token


def _kept() -> dict[str, str]:
    path = credentials_file()
    try:
        content = json.loads(path.read_text())
        return {"server": str(content["server"]), "token": str(content["token"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise PlackettError(f"{path} cannot be read: say `plackett login SERVER` again.") from None
