"""The client where things go wrong: busy servers, broken connections, faulty records, odd files."""

import gzip
import json
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pytest_django.live_server_helper import LiveServer

from annotate.models import DatabaseEpoch, Project, Prompt, Role
from annotate.services.queue import next_leases
from annotate.services.signatures import sign
from annotate.services.tokens import create_token
from plackett import Client, Disconnected, Refused, batches, cli, transport
from plackett.cli import main
from plackett.webhooks import verify
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit


class Scripted:
    """A server that gives these answers in turn, and keeps what it was asked."""

    def __init__(self, answers: list[tuple[int, dict[str, str], bytes]]) -> None:
        self.answers, self.asked = answers, list[tuple[str, dict[str, str], bytes]]()
        self.url = ""


@contextmanager
def scripted(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[Scripted]:
    found = Scripted(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.asked.append((self.path, dict(self.headers), body))
            status, headers, content = found.answers.pop(0)
            if not status:  # hangs up
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = "Content-Length" in headers  # it promised more than it sent

        do_GET = do_POST

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client waited before each attempt; the test does not."""
    found: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", found.append)
    return found


def answer(body: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(body).encode()


def refusal(status: int, **headers: str) -> tuple[int, dict[str, str], bytes]:
    error = {"error": {"code": "x", "message": "Not now.", "fields": {"name": "Too long."}}}
    return status, headers, json.dumps(error).encode()


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_a_busy_server_is_asked_again_as_it_says_and_a_post_keeps_its_key(pauses: list[float]) -> None:
    counts = answer({"read": 1, "written": 1, "errors": [], "batch": 4, "dry_run": False})
    with scripted(refusal(429, **{"Retry-After": "7"}), (0, {}, b""), refusal(503), counts) as server:
        pushed = Client(server.url, "pk_x").push_prompts("demo", [{"prompt": "Tea?"}])
    assert (pushed.counts, pushed.batches, pushed.whole) == ({"read": 1, "written": 1}, [4], True)
    keys = {headers["Idempotency-Key"] for _, headers, _ in server.asked}
    assert len(server.asked) == 4 and len(keys) == 1
    assert pauses[0] == 0 and pauses[1] == 7 and 1.5 <= pauses[2] <= 2.5 and 3 <= pauses[3] <= 5


def test_a_refusal_is_not_repeated_and_says_what_is_wrong_where(pauses: list[float]) -> None:
    with scripted(refusal(422)) as server, pytest.raises(Refused) as refused:
        Client(server.url, "pk_x").freeze("demo", "x")
    assert str(refused.value) == "Not now. (name: Too long.)" and refused.value.status == 422
    assert len(server.asked) == 1


def test_it_gives_up_in_the_end(pauses: list[float]) -> None:
    with scripted(*[refusal(503)] * 3) as server, pytest.raises(Refused, match="Not now"):
        Client(server.url, "pk_x", attempts=3).me()
    with pytest.raises(Disconnected, match="cannot be reached"):
        Client(server.url, "pk_x", attempts=2).me()
    with scripted((200, {}, b"<html>")) as other, pytest.raises(Disconnected, match="is this a Plackett server"):
        Client(other.url, "pk_x").me()


def test_an_export_that_is_not_whole_is_told(pauses: list[float]) -> None:
    head = {"Plackett-Count": "2", "Plackett-Cursor": "c"}
    for content in (b'{"a":1}\n', b'{"a":1}\n{"a":'):
        with scripted((200, head, content)) as server, pytest.raises(Disconnected, match="instead of 2"):
            list(Client(server.url, "pk_x").preferences("demo"))
    with scripted((200, head | {"Content-Length": "99"}, b'{"a":1}\n')) as server, pytest.raises(Disconnected):
        list(Client(server.url, "pk_x", attempts=1).preferences("demo"))


def test_records_go_in_batches_whose_lines_are_counted_through(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(batches, "BATCH_LINES", 2)
    faulty = {"read": 2, "skipped": 1, "errors": [{"line": 2, "reason": "No prompt."}], "batch": None}
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n":1}\n{"n":2}\n{"n":3}\n{"n":4}'))
    with scripted(answer({"read": 2, "errors": []}), answer(faulty)) as server:
        pushed = Client(server.url, "pk_x").push_prompts("demo", path, overlap=2)
    assert [body for _, _, body in server.asked] == [b'{"n":1}\n{"n":2}\n', b'{"n":3}\n{"n":4}\n']
    assert server.asked[0][0].endswith("?format=plackett&overlap=2")
    assert pushed.counts == {"read": 4, "skipped": 1} and not pushed.whole
    assert pushed.errors == [{"line": 4, "reason": "No prompt."}]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(transactional_db: None) -> Project:
    found = make_project("demo", overlap=3)
    make_task(found, overlap=3)
    return found


@pytest.fixture
def logged_in(project: Project, live_server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    alice = make_user("alice", project=project, role=Role.MANAGER, engineer=True)
    token = create_token(user=alice, name="t", scopes=["read", "write"])[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACKETT_CREDENTIALS", str(tmp_path / "folder" / "kept.json"))
    (tmp_path / "token").write_text(token)
    assert main(["login", f"{live_server.url}/", "--token-file", "token"]) == 0
    return tmp_path


def rank(project: Project, name: str) -> None:
    person = make_user(name, project=project)
    submit(next_leases(project=project, annotator=person)[0], person)


def test_the_command_from_login_to_logout(
    logged_in: Path, project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = logged_in / "folder" / "kept.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    records = [{"prompt": "Tea?", "responses": [{"id": "a", "text": "1"}, {"id": "b", "text": "2"}]}, {"prompt": 7}]
    Path("in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    assert main(["push", "demo", "in.jsonl"]) == 1, "one was not taken"
    told = capsys.readouterr()
    assert "in.jsonl, line 2: " in told.err and "1 written" in told.out
    assert Prompt.objects.count() == 2

    # Each pull brings what is new; what a broken one left is cut away.
    rank(project, "bob")
    assert main(["pull", "demo", "out.jsonl"]) == 0
    first = Path("out.jsonl").read_bytes()
    Path("out.jsonl").write_bytes(first + b'{"half a li')
    rank(project, "dora")
    assert main(["pull", "demo", "out.jsonl"]) == 0
    whole = Path("out.jsonl").read_bytes()
    assert whole.startswith(first) and [json.loads(line)["revision"] for line in whole.splitlines()] == [1, 1]
    assert main(["pull", "demo", "out.jsonl", "--format", "trl"]) == 2
    assert "name another file" in capsys.readouterr().err
    Path("out.jsonl").write_bytes(b"")
    assert main(["pull", "demo", "out.jsonl"]) == 2 and "--restart" in capsys.readouterr().err
    DatabaseEpoch.objects.create()
    Path("out.jsonl").write_bytes(whole)
    assert main(["pull", "demo", "out.jsonl"]) == 2, "the database was restored"
    assert "Say --restart" in capsys.readouterr().err
    votes = ["pull", "demo", "votes.jsonl", "--format", "trl", "--votes", "majority"]
    assert main(votes) == 0 and main(votes) == 2 and "Say --restart" in capsys.readouterr().err
    assert main([*votes[:-1], "each"]) == 2, "a file grows by one choice of options"
    assert main(["pull", "demo", "out.jsonl", "--restart"]) == 0 and Path("out.jsonl").read_bytes() == whole
    Path("mine.txt").write_text("mine")
    assert main(["pull", "demo", "mine.txt"]) == 2 and Path("mine.txt").read_text() == "mine"

    # What the server refuses is one line and a code; so is a server that is not there.
    capsys.readouterr()
    assert main(["freeze", "elsewhere", "x"]) == 2
    assert main(["run", "demo", "reward", "--snapshot", "1", "--base-model", "tiny"]) == 2, "the token may not"
    assert main(["run", "demo", "reward", "--snapshot", "1", "--base-model", "tiny", "--set", "nonsense"]) == 2
    assert main(["push", "demo", "absent.jsonl"]) == 2
    assert all(line.startswith("plackett: ") for line in capsys.readouterr().err.splitlines())
    monkeypatch.setattr(transport.time, "sleep", lambda _seconds: None)
    monkeypatch.setenv("PLACKETT_TOKEN", "pk_x")
    assert main(["--server", "http://127.0.0.1:1", "whoami"]) == 3
    monkeypatch.delenv("PLACKETT_TOKEN")
    assert main(["--server", "http://127.0.0.1:1", "whoami"]) == 2, "a kept token goes to no other server"
    assert main(["logout"]) == 0 and not kept.exists()
    assert main(["whoami"]) == 2


def test_a_wrong_token_is_not_kept(live_server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACKETT_CREDENTIALS", str(tmp_path / "kept.json"))
    (tmp_path / "token").write_text("pk_wrong")
    assert main(["login", live_server.url, "--token-file", str(tmp_path / "token")]) == 2
    assert not (tmp_path / "kept.json").exists()


# --- webhooks ---------------------------------------------------------------------------------------------------------


def test_a_receiver_knows_a_delivery() -> None:
    now, body = int(time.time()), b'{"id": "1", "event": "ping"}'
    good = f"t={now},v1={sign('whsec_old', now, body)},v1={sign('whsec_new', now, body)}"
    for secret in ("whsec_old", "whsec_new"):
        assert verify(secret=secret, signature=good, body=body)["event"] == "ping"
    old = f"t={now - 400},v1={sign('whsec_new', now - 400, body)}"
    for signature, content in ((good, body + b" "), (old, body), ("", body), ("t=x,v1=y", body), (f"t={now}", body)):
        with pytest.raises(ValueError):
            verify(secret="whsec_new", signature=signature, body=content)
    with pytest.raises(ValueError):
        verify(secret="whsec_other", signature=good, body=body)


# --- guides -----------------------------------------------------------------------------------------------------------


def test_the_guide_names_every_command_and_exit_code() -> None:
    told = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    (commands,) = (one for one in cli.parser()._actions if isinstance(one.choices, dict))
    assert len(commands.choices or {}) >= 8
    assert [name for name in commands.choices or {} if not re.search(rf"plackett {name}|`{name}", told)] == []
    for code in (cli.DONE, cli.NOT_WHOLE, cli.REFUSED, cli.UNREACHED, cli.WAITED):
        assert f"| {code} | " in told


@pytest.mark.slow
def test_a_dataset_has_the_columns_of_all_its_rows(live_server: LiveServer) -> None:
    """A list of rows would have those of the first alone; `extra` holds the keys that no format knows."""
    project = make_project("tales")
    _, secret = create_token(
        user=make_user("eve", project=project, role=Role.MANAGER, engineer=True), name="x", scopes=("read", "write")
    )
    client = Client(live_server.url, secret)
    record = {"responses": ["yes", "no"], "ranking": [["r1"], ["r2"]]}
    client.push_prompts("tales", [{"prompt": "Tea?", **record}, {"prompt": "Milk?", "topic": "drinks", **record}])
    found = client.dataset("tales", format="plackett")
    assert [json.loads(row["extra"] or "{}").get("topic") for row in found] == [None, "drinks"]
    pairs = client.dataset("tales", models="yes")
    assert pairs.column_names == ["prompt", "chosen", "rejected", "chosen_model", "rejected_model"] and len(pairs) == 2
    assert client.dataset("tales", split="test", format="trl").column_names == ["prompt", "chosen", "rejected"]
