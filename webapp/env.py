"""Reading process settings from the environment; a value that makes no sense stops the start with one clear line."""

import os
import secrets
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


class BadSetting(SystemExit):
    """A setting in the environment that cannot be used; printed as one line, exit status 1."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"plackett: {name} {problem}")


def text(name: str, default: str = "") -> str:
    """The variable's value without surrounding blanks; empty counts as absent."""
    return os.environ.get(name, "").strip() or default


def flag(name: str, default: bool) -> bool:
    """A yes/no variable: 1, true, yes, on or 0, false, no, off."""
    value = text(name).lower()
    if not value:
        return default
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise BadSetting(name, f"must be 1 or 0, not {value!r}")


def integer(name: str, default: int, low: int, high: int) -> int:
    """A whole number between low and high, both included."""
    value = text(name)
    if not value:
        return default
    if not value.isdecimal() or not low <= int(value) <= high:
        raise BadSetting(name, f"must be a whole number from {low} to {high}, not {value!r}")
    return int(value)


def listing(name: str) -> list[str]:
    """A comma-separated list; blanks around items are dropped."""
    return [item.strip() for item in text(name).split(",") if item.strip()]


def secret(name: str, folder: Path, filename: str) -> str:
    """The variable's value, else a secret generated once and kept in the folder with mode 600."""
    if value := text(name):
        return value
    path = folder / filename
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _publish(path, secrets.token_urlsafe(50))
        return path.read_text().strip()
    except OSError as error:
        raise BadSetting("PLACKETT_HOME", f"cannot hold the secret key: {error}") from None


def _publish(path: Path, content: str) -> None:
    """Write the file whole or not at all: of two processes that start together, both read the first one's."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def database(url: str) -> dict[str, str | int]:
    """Django's connection parameters from postgresql://user:password@host:port/name, or with ?host=/socket/folder."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise BadSetting("DATABASE_URL", "must start with postgresql:// (Plackett runs on PostgreSQL only)")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    try:
        port = parts.port
    except ValueError:
        raise BadSetting("DATABASE_URL", "has a port that is no number") from None
    return {
        "NAME": unquote(parts.path.lstrip("/")) or "plackett",
        "USER": unquote(parts.username or query.get("user", "")),
        "PASSWORD": unquote(parts.password or query.get("password", "")),
        "HOST": unquote(parts.hostname or "") or query.get("host", ""),
        "PORT": port or query.get("port", ""),
    }
