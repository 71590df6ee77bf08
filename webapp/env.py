"""Reading process settings from the environment; a value that makes no sense stops the start with one clear line."""

import os
import re
import secrets
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

# What a database address may say besides where and who: libpq's own parameters, passed on as they are.
CONNECTION_PARAMETERS = {
    "application_name",
    "channel_binding",
    "connect_timeout",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
}


class BadSetting(SystemExit):
    """A setting in the environment that cannot be used; printed as one line, exit status 1."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"plackett: {name} {problem}")


def text(name: str, default: str = "") -> str:
    """The variable's value without surrounding blanks; empty counts as absent."""
    return os.environ.get(name, "").strip() or default


def private(name: str) -> str:
    """A variable that holds a secret: its value, or what stands in the file that NAME_FILE names; empty if neither.

    A file keeps the secret out of the process list and out of what `docker inspect` and crash reports show.
    """
    value, path = text(name), text(f"{name}_FILE")
    if not path:
        return value
    if value:
        raise BadSetting(name, f"and {name}_FILE are both set: keep one")
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise BadSetting(f"{name}_FILE", f"names a file that cannot be read, {path}: {error}") from None
    if not content:
        raise BadSetting(f"{name}_FILE", f"names an empty file, {path}")
    return content


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


def price(name: str) -> tuple[Decimal, str] | None:
    """An amount and a currency's code, as `2.50 EUR`; None where it is not set."""
    value = text(name)
    if not value:
        return None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,4})?) +([A-Z]{3})", value, re.ASCII)
    if found is None:
        raise BadSetting(name, f"must be an amount and a currency, like 2.50 EUR, not {value!r}")
    return Decimal(found[1]), found[2]


def run_queues() -> tuple[str, ...]:
    """The queues of runs: kinds of workers, the usual one first."""
    return tuple(listing("PLACKETT_RUN_QUEUES")) or ("gpu", "gpu.large", "cpu")


def bucket(name: str) -> tuple[str, str] | None:
    """Bucket and prefix of an address s3://BUCKET/PREFIX; None where none is named."""
    value = text(name)
    if not value:
        return None
    parts = urlsplit(value)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        raise BadSetting(name, f"must be s3://BUCKET or s3://BUCKET/PREFIX, not {value!r}")
    return parts.netloc, parts.path.strip("/")


def bucket_storage(bucket: str, prefix: str) -> dict[str, Any]:
    """Django's settings of a storage in the bucket; credentials that are not given are those that boto3 finds."""
    endpoint = text("PLACKETT_S3_ENDPOINT")
    if endpoint and urlsplit(endpoint).scheme not in {"http", "https"}:
        raise BadSetting("PLACKETT_S3_ENDPOINT", f"must start with http:// or https://, not {endpoint!r}")
    key, password = private("PLACKETT_S3_ACCESS_KEY"), private("PLACKETT_S3_SECRET_KEY")
    if bool(key) != bool(password):
        raise BadSetting("PLACKETT_S3_ACCESS_KEY", "and PLACKETT_S3_SECRET_KEY go together: set both, or neither")
    return {
        "bucket_name": bucket,
        "location": prefix,
        "endpoint_url": endpoint or None,
        "region_name": text("PLACKETT_S3_REGION") or None,
        **({"access_key": key, "secret_key": password} if key else {}),
    }


def mlflow_uri() -> str:
    """The address of the MLflow server, without a slash at the end; empty for none."""
    name = "PLACKETT_MLFLOW_URI"
    uri = text(name).rstrip("/")
    if not uri:
        return ""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadSetting(name, "must be the address of an MLflow server, http://… or https://…")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadSetting(name, "must be an address alone: a log-in goes into PLACKETT_MLFLOW_TOKEN or …_PASSWORD")
    return uri


def mlflow_login() -> tuple[str, str, str]:
    """Token, or name and password, for the MLflow server; empty for none."""
    token, name = private("PLACKETT_MLFLOW_TOKEN"), text("PLACKETT_MLFLOW_USERNAME")
    password = private("PLACKETT_MLFLOW_PASSWORD")
    if bool(name) != bool(password):
        raise BadSetting("PLACKETT_MLFLOW_USERNAME", "and PLACKETT_MLFLOW_PASSWORD belong together: set both or none")
    if token and password:
        raise BadSetting("PLACKETT_MLFLOW_TOKEN", "and PLACKETT_MLFLOW_PASSWORD are both set: keep one")
    return token, name, password


def secret(name: str, folder: Path, filename: str) -> str:
    """The variable's value or its file's content, else a secret generated once and kept in the folder, mode 600."""
    if value := private(name):
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


def database(url: str, *, password: str = "") -> dict[str, Any]:
    """Django's connection parameters from postgresql://user:password@host:port/name, or with ?host=/socket/folder.

    Args:
        password: used where the address has none.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise BadSetting("DATABASE_URL", "must start with postgresql:// (Plackett runs on PostgreSQL only)")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    try:
        port = parts.port
    except ValueError:
        raise BadSetting("DATABASE_URL", "has a port that is no number") from None
    options = {key: value for key, value in query.items() if key not in {"user", "password", "host", "port"}}
    if unknown := sorted(set(options) - CONNECTION_PARAMETERS):
        raise BadSetting("DATABASE_URL", f"has a parameter that is not known: {unknown[0]}")
    return {
        "NAME": unquote(parts.path.lstrip("/")) or "plackett",
        "USER": unquote(parts.username or query.get("user", "")),
        "PASSWORD": unquote(parts.password or query.get("password", "")) or password,
        "HOST": unquote(parts.hostname or "") or query.get("host", ""),
        "PORT": port or query.get("port", ""),
        "OPTIONS": options,
    }


def with_password(url: str, password: str) -> str:
    """The address with this password in it, unless it has one already or there is none to add."""
    parts = urlsplit(url)
    if not password or parts.password is not None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}").geturl()
