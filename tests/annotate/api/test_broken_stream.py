"""An export over the production server that breaks half-way: no client may take it for whole."""

import http.client
import json
import random
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from django.db import connection

from annotate.interchange import read_file
from annotate.models import Project, Ranking
from annotate.services.imports import import_records
from annotate.services.tokens import create_token
from tests.annotate.factories import make_project, make_user
from tests.web import web_server

RECORDS = 1500
EXPORT = "/api/v1/projects/long/export/"
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def token(transactional_db: None, tmp_path: Path) -> str:
    """Of an engineer in a project with 15 MB of rankings: more than sockets hold, in several pages of the database."""
    project = make_project("long")
    import_long_records(project, tmp_path / "long.jsonl")
    user = make_user("eve", project=project, engineer=True)
    return create_token(user=user, name="t", scopes=["read"])[1]


def import_long_records(project: Project, path: Path) -> None:
    drawn = random.Random(0)  # compressed, too, it is more than sockets hold
    with path.open("w") as file:
        for number in range(RECORDS):
            texts = [{"id": name, "text": drawn.randbytes(2500).hex()} for name in ("a", "b")]
            record = {"prompt": f"{number}?", "responses": texts, "ranking": [["a"], ["b"]], "annotator": "x"}
            file.write(json.dumps(record) + "\n")
    import_records(project=project, records=read_file("plackett", path))
    assert Ranking.objects.count() == RECORDS


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with web_server(tmp_path_factory.mktemp("home")) as (address, _process):
        yield address


def open_stream(server: str, token: str, **headers: str) -> http.client.HTTPResponse:
    client = http.client.HTTPConnection(server, timeout=60)
    client.request("GET", EXPORT, headers={"Authorization": f"Token {token}"} | headers)
    answer = client.getresponse()
    assert answer.status == 200 and answer.getheader("Transfer-Encoding") == "chunked"
    return answer


def cut_the_servers_connections() -> None:
    """What a restart of Postgres does to the export: its next page finds the connection gone."""
    settings = connection.settings_dict
    with psycopg.connect(host=settings["HOST"], user=settings["USER"], dbname="postgres", autocommit=True) as other:
        ended = other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> %s AND backend_type = 'client backend'",  # not a vacuum of Postgres itself
            [settings["NAME"], connection.connection.info.backend_pid],
        ).fetchall()
    assert ended


def test_a_broken_export_is_an_error_for_the_client(server: str, token: str) -> None:
    whole = open_stream(server, token)
    lines = whole.read().splitlines()
    assert len(lines) == int(whole.getheader("Plackett-Count") or 0) == RECORDS

    for coding in ("identity", "identity", "gzip"):
        broken = open_stream(server, token, **{"Accept-Encoding": coding})
        begun = broken.read(100_000)
        assert begun and broken.getheader("Content-Encoding", "identity") == coding
        cut_the_servers_connections()
        with pytest.raises(http.client.IncompleteRead) as cut:
            broken.read()
    reader = zlib.decompressobj(31)
    assert reader.decompress(begun + cut.value.partial) and not reader.eof, "nor is it a whole gzip file"

    again = open_stream(server, token)
    assert again.read().splitlines() == lines, "the places of the broken exports were given back"


def test_httpx_raises_too(server: str, token: str) -> None:
    headers = {"Authorization": f"Token {token}"}
    with httpx.stream("GET", f"http://{server}{EXPORT}", headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        cut_the_servers_connections()
        assert answer.headers["Content-Encoding"] == "gzip", "httpx asks for it by itself"
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_a_client_that_goes_away_gives_its_place_back(server: str, token: str) -> None:
    for _ in range(4):
        answer = open_stream(server, token)
        answer.read(1000)
        answer.close()
        until = time.monotonic() + 30
        while time.monotonic() < until:
            check = httpx.head(f"http://{server}{EXPORT}", headers={"Authorization": f"Token {token}"}, timeout=60)
            if check.status_code == 200:
                break
            time.sleep(0.1)
        assert check.status_code == 200
