"""Broken files through the three doors of an import: REST, the command, the page. What each reader makes of what is
broken is tried in tests/annotate/pure/test_fuzzed_files.py."""

import gzip
import html
import io
import json
import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.urls import reverse

from annotate.models import ImportBatch, ImportUpload, Project, Prompt, Role, User
from annotate.services.tokens import create_token
from tests.annotate.api.conftest import token_client
from tests.annotate.factories import make_project, make_user
from tests.annotate.pages.test_pages import browser
from tests.web import web_server

NAME = "tea.jsonl"


class Seen(NamedTuple):
    """What a door told: how many records were written, the faults (file, line, reason), or why the file is refused."""

    written: int
    faults: list[tuple[str, int, str]]
    refused: str = ""


@pytest.fixture
def project(db: None) -> Project:
    return make_project("tales")


@pytest.fixture
def manager(project: Project) -> User:
    return make_user("mia", project=project, role=Role.MANAGER)


# --- the doors --------------------------------------------------------------------------------------------------------


def by_rest(data: bytes, manager: User, folder: Path) -> Seen:
    path = "/api/v1/projects/tales/prompts/"
    answer = token_client(manager).generic("POST", path, data, content_type="application/x-ndjson")
    told = answer.json()
    if answer.status_code != 200:
        assert answer.status_code == 400, told
        return Seen(0, [], told["error"]["message"])
    return Seen(told["written"], [(NAME, one["line"], one["reason"]) for one in told["errors"]])  # a body has no name


def by_command(data: bytes, manager: User, folder: Path) -> Seen:
    (folder / NAME).write_bytes(data)
    out = io.StringIO()
    try:
        call_command(
            "import_data", "--project", "tales", "--format", "plackett", folder / NAME, stdout=out, verbosity=0
        )
    except CommandError as refused:
        return Seen(0, [], str(refused))
    written = re.search(r"read, (\d+) written", out.getvalue())
    assert written is not None
    faults = re.findall(r"skipped: (\S+), line (\d+): (.*)", out.getvalue())
    return Seen(int(written[1]), [(file, int(line), reason) for file, line, reason in faults])


def by_page(data: bytes, manager: User, folder: Path) -> Seen:
    upload = {"format": "plackett", "file": SimpleUploadedFile(NAME, data)}
    person = browser(manager)
    answer = person.post(reverse("import_data", args=["tales"]), upload)
    if answer.status_code != 302:
        assert answer.status_code == 422 and not ImportUpload.objects.exists()
        return Seen(0, [], html.unescape(answer.content.decode()))
    looked = person.get(answer["Location"]).content.decode()
    done = person.post(answer["Location"], {"do": "import"}).content.decode()
    written = re.search(r"(\d+) records? w(?:as|ere) taken in", done)
    assert written is not None, done
    assert faults_in(looked) == faults_in(done), "the preview says so, too"
    (batch,) = ImportBatch.objects.all()
    return Seen(int(written[1]), [(batch.source, number, reason) for number, reason in faults_in(done)])


DOORS: dict[str, Callable[[bytes, User, Path], Seen]] = {"rest": by_rest, "command": by_command, "page": by_page}


# --- what is broken ---------------------------------------------------------------------------------------------------


def line(name: str, question: str = "Tea?") -> str:
    responses = [{"id": "a", "text": "A drink."}, {"id": "b", "text": "A leaf."}]
    return json.dumps({"external_id": name, "prompt": f"{question} {name}", "responses": responses})


#: A record between two good ones, and what is said of it.
RECORDS = {
    "NUL byte": (line("x").replace("Tea", "T\0ea"), "holds a NUL character"),
    "NUL escaped": (line("x").replace("Tea", "T\\u0000ea"), "NUL"),
    "lone surrogate": (line("x").replace("Tea", "T\\ud800ea"), "surrogate"),
    "NaN": (line("x").replace('"x",', '"x", "weight": NaN,', 1), "holds NaN, which is not JSON"),
    "nested": (line("x").replace('"x",', f'"x", "deep": {"[" * 100_000}{"]" * 100_000},', 1), "nested deeper than 200"),
    "twice": (line("one"), "duplicate"),
    "no JSON": (line("x")[:-20], "not JSON"),
}
WHOLE = "\n".join(line(str(number)) for number in range(200)).encode()
FILES = {
    "gzip cut off": (gzip.compress(WHOLE)[:-20], "the gzip file ends too early"),
    "gzip damaged": (gzip.compress(WHOLE)[:300] + b"\xff" * 40 + gzip.compress(WHOLE)[340:], "gzip file is damaged"),
    "Latin-1": (WHOLE + b"\n" + line("x", "Gr\u00fc\u00dfe").encode() + "\nGrüße".encode("latin-1"), "not UTF-8"),
    "UTF-16": (WHOLE.decode().encode("utf-16"), "not UTF-8"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", RECORDS)
def test_a_bad_record_is_skipped_and_told_with_file_line_and_reason(
    kind: str, door: str, project: Project, manager: User, tmp_path: Path
) -> None:
    bad, reason = RECORDS[kind]
    seen = DOORS[door]("\n".join([line("one"), bad, line("two")]).encode(), manager, tmp_path)
    assert seen.refused == "" and seen.written == 2
    assert [(file, number) for file, number, _ in seen.faults] == [(NAME, 2)]
    assert reason in seen.faults[0][2]
    assert sorted(Prompt.objects.values_list("external_id", flat=True)) == ["one", "two"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_changes_nothing(kind: str, door: str, project: Project, manager: User, tmp_path: Path) -> None:
    data, reason = FILES[kind]
    seen = DOORS[door](data, manager, tmp_path)
    assert reason in seen.refused and "othing was changed" in seen.refused
    assert not Prompt.objects.exists() and not ImportBatch.objects.exists()


# --- what is large ----------------------------------------------------------------------------------------------------

#: A line longer than a record may be, and a bomb: a small gzip file with a line that is longer still.
LONG, BOMB = 50_000_000, 120_000_000
#: What a process may grow by. A record may be 10 MB, and is held as bytes, as text and parsed.
GROWTH = 80_000_000


def large_files(folder: Path) -> list[Path]:
    hidden = random.Random(0).randbytes(2_500).hex().encode() * (BOMB // 5_000)  # packed to about a hundredth
    good, more = (f"{line(name)}\n".encode() for name in ("one", "two"))
    files = {
        "long.jsonl": good + line("x", "x" * LONG).encode() + b"\n" + more,
        "bomb.jsonl.gz": gzip.compress(good) + gzip.compress(hidden) + gzip.compress(b"\n" + more),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


@contextmanager
def stays_small(process: int) -> Iterator[None]:
    """Fails if the process grew too much meanwhile, however shortly."""
    Path(f"/proc/{process}/clear_refs").write_text("5")  # its peak is from now on
    before = in_memory(process, "VmRSS")
    yield
    grown = in_memory(process, "VmHWM") - before
    assert grown < GROWTH, f"grew by {grown / 1e6:.0f} MB"


def in_memory(process: int, what: str) -> int:
    return 1024 * int(Path(f"/proc/{process}/status").read_text().partition(f"{what}:")[2].split()[0])


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with web_server(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture
def loader(transactional_db: None) -> User:
    return make_user("mia", project=make_project("tales"), role=Role.MANAGER)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it")
def test_what_is_too_long_is_passed_over_in_little_memory(
    server: tuple[str, int], loader: User, tmp_path: Path
) -> None:
    address, main = server
    files = large_files(tmp_path)
    (worker,) = psutil.Process(main).children()
    with httpx.Client(base_url=f"http://{address}", timeout=120) as web:
        for path in files:
            for door in (faults_by_rest, faults_by_page):
                with stays_small(worker.pid):
                    assert door(web, loader, path) == [(2, "longer than 10 MB")]
    assert sorted(Prompt.objects.values_list("external_id", flat=True)) == ["one", "two"]
    for path in files:
        out = io.StringIO()
        with stays_small(os.getpid()):
            call_command("import_data", "--project", "tales", "--format", "plackett", path, stdout=out, verbosity=0)
        assert f"{path.name}, line 2: longer than 10 MB" in out.getvalue()


def faults_by_rest(web: httpx.Client, manager: User, path: Path) -> list[tuple[int, str]]:
    token = create_token(user=manager, name="t", scopes=["write"])[1]
    headers = {"Authorization": f"Token {token}", "Content-Type": "application/x-ndjson"}
    headers["Content-Length"] = str(path.stat().st_size)
    with path.open("rb") as file:
        answer = web.post("/api/v1/projects/tales/prompts/", content=file, headers=headers)
    assert answer.status_code == 200, answer.text
    return [(one["line"], one["reason"]) for one in answer.json()["errors"]]


def faults_by_page(web: httpx.Client, manager: User, path: Path) -> list[tuple[int, str]]:
    web.cookies = httpx.Cookies({"sessionid": browser(manager).cookies["sessionid"].value, "csrftoken": "t" * 32})
    safe = {"X-CSRFToken": "t" * 32}
    with path.open("rb") as file:
        looked = web.post(
            reverse("import_data", args=["tales"]), data={"format": "plackett"}, files={"file": file}, headers=safe
        )
    assert looked.status_code == 302 and "/import/" in looked.headers["Location"], looked.text
    assert web.get(looked.headers["Location"]).status_code == 200
    done = web.post(looked.headers["Location"], data={"do": "import"}, headers=safe)
    assert done.status_code == 200, done.text
    web.cookies.clear()
    return faults_in(done.text)


def faults_in(page: str) -> list[tuple[int, str]]:
    """The rows of a table of faults."""
    row = r'<td class="n">(\d+)</td>(?:<td>skipped</td>)?<td dir="auto">(.*?)</td></tr>'
    return [(int(number), html.unescape(reason)) for number, reason in re.findall(row, page)]


# --- what breaks off --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_body_whose_connection_breaks_changes_nothing_and_can_be_sent_again(
    server: tuple[str, int], loader: User
) -> None:
    """The server that we run under says of such a body only that there is no more."""
    token = create_token(user=loader, name="t", scopes=["write"])[1]
    body = f"{line('one')}\n{line('two')}\n".encode()
    half = body[: body.index(b"\n") + 1]  # a good file by itself
    for key in ("", "Idempotency-Key: k\r\n"):
        assert posted(server[0], token, key, half, length=len(body)) == (400, "parse_error")
        assert not Prompt.objects.exists() and not ImportBatch.objects.exists()
    assert posted(server[0], token, "Idempotency-Key: k\r\n", body, length=len(body)) == (200, 2)
    assert posted(server[0], token, "Idempotency-Key: k\r\n", half, length=len(half)) == (422, "idempotency_key_reused")


def posted(address: str, token: str, more: str, body: bytes, *, length: int) -> tuple[int, object]:
    """Sends a body and then no more, whatever was announced; returns the status and what is told."""
    host, port = address.split(":")
    head = f"POST /api/v1/projects/tales/prompts/ HTTP/1.1\r\nHost: {address}\r\nAuthorization: Token {token}\r\n"
    head += f"Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    status, told = int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2])
    return status, told["written"] if status == 200 else told["error"]["code"]
