"""How answers travel: 304 for what the caller has, gzip for who asks, and never a secret in it."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from annotate.api import sending
from annotate.api.sending import LEAST_BYTES, accepts_gzip, packed
from annotate.models import Project
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of
from tests.annotate.factories import make_task

GZIP = {"HTTP_ACCEPT_ENCODING": "gzip"}
PROMPTS = "/api/v1/projects/tales/prompts/"
HOOKS = "/api/v1/projects/tales/webhooks/"


def unpacked(answer: Any) -> bytes:
    assert answer["Content-Encoding"] == "gzip"
    return gzip.decompress(b"".join(answer.streaming_content) if answer.streaming else answer.content)


# --- what the caller has ---------------------------------------------------------------------------------------------


def test_an_answer_that_the_caller_has_is_not_sent_again(cast: Cast, project: Project, client_for: ClientFor) -> None:
    client = client_for(cast.alice)
    first = client.get(PROMPTS)
    etag = first["ETag"]
    assert etag.startswith('W/"') and first["Cache-Control"] == "private, no-cache"
    for known in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        again = client.get(PROMPTS, HTTP_IF_NONE_MATCH=known)
        assert (again.status_code, again.content, again["ETag"]) == (304, b"", etag), known
        assert "RateLimit" in again and "Accept-Encoding" in again["Vary"] and "Content-Type" not in again
    make_task(project)
    changed = client.get(PROMPTS, HTTP_IF_NONE_MATCH=etag)
    assert changed.status_code == 200 and changed["ETag"] != etag


def test_only_what_was_read_has_an_etag(cast: Cast, project: Project, client_for: ClientFor) -> None:
    client = client_for(cast.alice)
    assert "ETag" not in client.get("/api/v1/projects/none/", HTTP_IF_NONE_MATCH="*")
    assert client.get("/api/v1/projects/none/", HTTP_IF_NONE_MATCH="*").status_code == 404
    written = client.patch("/api/v1/projects/tales/", {"name": "New"}, HTTP_IF_NONE_MATCH="*")
    assert written.status_code == 200 and "ETag" not in written
    assert "ETag" not in client.get("/api/v1/projects/tales/export/")


# --- gzip ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("br, GZIP ;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=none", False),
        ("*", True),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
        ("deflate, br", False),
    ],
)
def test_only_who_takes_gzip_gets_it(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


def test_a_long_answer_comes_compressed_and_is_the_same(cast: Cast, project: Project, client_for: ClientFor) -> None:
    for _ in range(5):
        make_task(project)
    client = client_for(cast.alice)
    plain, small = client.get(PROMPTS), client.get(PROMPTS, **GZIP)
    assert "Content-Encoding" not in plain and len(plain.content) > LEAST_BYTES
    assert unpacked(small) == plain.content and len(small.content) < len(plain.content)
    assert plain["ETag"] == small["ETag"]
    assert "Accept-Encoding" in plain["Vary"] and "Accept-Encoding" in small["Vary"]
    assert "Content-Encoding" not in client.get("/api/v1/me/", **GZIP), "too short to gain anything"


def test_what_a_browser_asks_by_itself_is_never_compressed(cast: Cast, project: Project) -> None:
    for _ in range(5):
        make_task(project)
    browser = Client()
    browser.force_login(cast.alice)
    answer = browser.get(PROMPTS, **GZIP)
    assert len(answer.content) > LEAST_BYTES and "Content-Encoding" not in answer
    assert "Content-Encoding" not in browser.get("/p/tales/", **GZIP), "pages hold CSRF tokens"


def test_a_secret_is_never_compressed_beside_text_of_the_caller(
    cast: Cast, project: Project, client_for: ClientFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LEAST_BYTES", 1)
    client, body = client_for(cast.alice), {"url": "https://93.184.215.14/" + "x" * 100, "events": ["task.completed"]}
    made, again = (client.post(HOOKS, body, HTTP_IDEMPOTENCY_KEY="k", **GZIP) for _ in range(2))
    renewed = client.post(f"{HOOKS}{made.json()['id']}/secret/", **GZIP)
    for answer in (made, again, renewed):
        assert answer.status_code == 201 and answer.json()["secret"]
        assert "Content-Encoding" not in answer
    assert "Content-Encoding" in client.get("/api/v1/me/", **GZIP)


def test_an_error_can_be_read_whatever_was_asked(cast: Cast, client_for: ClientFor) -> None:
    error_of(client_for(cast.alice).get("/api/v1/projects/none/", **GZIP), 404, "not_found")


# --- streams ---------------------------------------------------------------------------------------------------------


def test_an_export_comes_compressed_and_is_the_same(cast: Cast, project: Project, client_for: ClientFor) -> None:
    client, path = client_for(cast.alice), "/api/v1/projects/tales/export/"
    record = {"responses": [{"id": "a", "text": "1"}, {"id": "b", "text": "2"}], "ranking": [["a"], ["b"]]}
    sent = client.post(PROMPTS, {"records": [{"prompt": f"{number}?", **record} for number in range(20)]})
    assert sent.json()["written"] == 20, sent.content
    plain, small = client.get(path), client.get(path, **GZIP)
    lines = unpacked(small)
    assert lines == b"".join(plain.streaming_content) and len(lines.splitlines()) == 20
    assert json.loads(lines.splitlines()[0])["format"] == "plackett/1"
    assert small["Plackett-Count"] == "20" and "Accept-Encoding" in small["Vary"] and "Accept-Encoding" in plain["Vary"]
    assert "Content-Encoding" not in client.get(path, {"as": "parquet"}, **GZIP)


def test_a_compressed_stream_that_breaks_has_no_end() -> None:
    def lines() -> Iterator[bytes]:
        yield b"one\n" * 1000
        raise RuntimeError("broke")

    sent, reader = [], zlib.decompressobj(31)
    with pytest.raises(RuntimeError):
        for block in packed(lines()):
            sent.append(block)
    assert reader.decompress(b"".join(sent)) == b"one\n" * 1000, "what was there is sent as it comes"
    assert not reader.eof
