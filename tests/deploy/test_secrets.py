"""Secrets from files, and addresses that get their password from one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.files import REPOSITORY
from webapp import env

PASSWORD = "p:a/s@s %w#rd"
QUOTED = "p%3Aa%2Fs%40s%20%25w%23rd"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{PASSWORD}\n")
    return path


def test_a_secret_comes_from_its_variable_or_its_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert env.private("PLACKETT_NONE") == ""
    monkeypatch.setenv("PLACKETT_NONE_FILE", str(file))
    assert env.private("PLACKETT_NONE") == PASSWORD
    monkeypatch.delenv("PLACKETT_NONE_FILE")
    monkeypatch.setenv("PLACKETT_NONE", "other")
    assert env.private("PLACKETT_NONE") == "other"


@pytest.mark.parametrize(
    ("content", "value", "told"),
    [
        (None, "", "plackett: X_FILE names a file that cannot be read, "),
        ("", "", "plackett: X_FILE names an empty file, "),
        ("a", "b", "plackett: X and X_FILE are both set: keep one"),
        (b"\xff\xfe", "", "plackett: X_FILE names a file that cannot be read, "),
    ],
)
def test_a_secret_that_cannot_be_had_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes | None, value: str, told: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("X_FILE", str(path))
    monkeypatch.setenv("X", value)
    with pytest.raises(env.BadSetting) as stopped:
        env.private("X")
    assert str(stopped.value).startswith(told)
    assert content == "a" or str(path) in str(stopped.value)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://redis:6379/0", f"redis://:{QUOTED}@redis:6379/0"),
        ("rediss://user@redis/0?ssl_cert_reqs=required", f"rediss://user:{QUOTED}@redis/0?ssl_cert_reqs=required"),
        ("redis://:other@redis:6379/0", "redis://:other@redis:6379/0"),
    ],
)
def test_an_address_gets_the_password_that_it_lacks(url: str, whole: str) -> None:
    assert env.with_password(url, PASSWORD) == whole
    assert env.with_password(url, "") == url


def test_a_database_address_keeps_what_libpq_understands_and_refuses_the_rest() -> None:
    found = env.database("postgresql://me@db:5433/rank?sslmode=verify-full&sslrootcert=/ca.pem", password=PASSWORD)
    assert found == {
        "NAME": "rank",
        "USER": "me",
        "PASSWORD": PASSWORD,
        "HOST": "db",
        "PORT": 5433,
        "OPTIONS": {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
    }
    assert env.database("postgresql://me:mine@db/rank", password=PASSWORD)["PASSWORD"] == "mine"
    socket = env.database("postgresql://me@/rank?host=/run/pg&port=5")
    assert (socket["HOST"], socket["PORT"], socket["OPTIONS"]) == ("/run/pg", "5", {})
    with pytest.raises(env.BadSetting, match="sslmod$"):
        env.database("postgresql://me@db/rank?sslmod=verify-full")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"URI": "sqlite:///x.db"}, "must be the address of an MLflow server"),
        ({"URI": "https://me:mine@mlflow/"}, "must be an address alone"),
        ({"URI": "https://mlflow?token=mine"}, "must be an address alone"),
        ({"USERNAME": "me"}, "belong together"),
        ({"PASSWORD": "mine"}, "belong together"),
        ({"USERNAME": "me", "PASSWORD": "mine", "TOKEN": "mine"}, "keep one"),
    ],
)
def test_an_mlflow_server_that_cannot_be_meant_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], told: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"PLACKETT_MLFLOW_{name}", value)
    with pytest.raises(env.BadSetting, match=told) as stopped:
        env.mlflow_uri(), env.mlflow_login()
    assert "mine" not in str(stopped.value)


def test_an_mlflow_server_is_an_address_and_a_log_in(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert (env.mlflow_uri(), env.mlflow_login()) == ("", ("", "", ""))
    monkeypatch.setenv("PLACKETT_MLFLOW_URI", "https://example.org/mlflow/")
    monkeypatch.setenv("PLACKETT_MLFLOW_TOKEN_FILE", str(file))
    assert (env.mlflow_uri(), env.mlflow_login()) == ("https://example.org/mlflow", (file.read_text().strip(), "", ""))


def test_settings_read_all_secrets_from_files(tmp_path: Path, file: Path) -> None:
    expression = (
        "(s.SECRET_KEY, s.DATABASES['default']['PASSWORD'], s.DATABASES['default']['HOST'], s.REDIS_URL, "
        "s.CELERY_BROKER_URL, s.CACHES['default']['LOCATION'])"
    )
    address = tmp_path / "address"
    address.write_text("postgresql://plackett@db.example:5432/plackett")
    done = subprocess.run(
        [sys.executable, "-c", f"from webapp import settings as s; print({expression})"],
        env={
            "PLACKETT_HOME": str(tmp_path / "home"),
            "PLACKETT_SECRET_KEY_FILE": str(file),
            "DATABASE_URL_FILE": str(address),
            "DATABASE_PASSWORD_FILE": str(file),
            "REDIS_URL": "redis://redis:6379/0",
            "REDIS_PASSWORD_FILE": str(file),
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    redis = f"redis://:{QUOTED}@redis:6379/0"
    assert done.stdout.strip() == str((PASSWORD, PASSWORD, "db.example", redis, redis, redis)), done.stderr
    assert not (tmp_path / "home").exists(), "no key is made where one is given"
