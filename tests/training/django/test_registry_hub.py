"""Pushing to a hub, by huggingface_hub against a hub of our own on the loopback; its uploads are those of git LFS."""

import base64
import hashlib
import importlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotate.models import Snapshot
from tests.training.django.test_registry_deletion import WEIGHTS, with_files
from tests.training.django.test_run_api import finished
from training.models import ModelEvent, ModelVersion, Run

pytestmark = pytest.mark.django_db

TOKEN = "hf_ours"


class Hub(ThreadingHTTPServer):
    """What was pushed: whether each repository is private, and its files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.private: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.messages: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The few addresses of a hub that one commit needs."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].removeprefix("/api/models/")
        if not self._is_known() or name not in self.server.private:
            self._answer({"error": "Repository not found"}, 404)
            return
        self._answer({"id": name, "modelId": name, "private": self.server.private[name], "siblings": []})

    def do_PUT(self) -> None:
        body = self._body()
        self.server.stored[hashlib.sha256(body).hexdigest()] = body
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if not self._is_known() and "/storage/" not in self.path:
            self._answer({"error": "Invalid token"}, 401)
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            self._answer({"files": [self._mode(one) for one in json.loads(body)["files"]]})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            self._answer({"transfer": "basic", "objects": [self._place(one) for one in json.loads(body)["objects"]]})
        elif "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._answer({})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.private:
            self._answer({"error": "exists", "url": f"{self.server.url}/{name}"}, 409)
        else:
            self.server.private[name] = asked["visibility"] == "private"
            self._answer({"url": f"{self.server.url}/{name}"})

    @staticmethod
    def _mode(file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _place(self, one: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.server.url}/storage/{one['oid']}", "header": {}}
        verify = {"href": f"{self.server.url}/storage/verify"}
        return {**one, "actions": {"upload": upload, "verify": verify}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.stored[value["oid"]]
            else:
                self.server.files[value["path"]] = base64.b64decode(value["content"])
        url = f"{self.server.url}/me/mine/commit/{'0' * 40}"
        self._answer({"commitUrl": url, "commitOid": "0" * 40, "success": True})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def model(snapshot: Snapshot, runs_root: Path) -> ModelVersion:
    found = finished(snapshot)
    with_files(found)
    return found


def test_the_folder_is_pushed_as_one_commit(model: ModelVersion, hub: Hub, capsys: Any) -> None:
    call_command("push_model", model.pk, "me/mine")
    assert hub.private == {"me/mine": True}
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors"]
    assert hub.files["model.safetensors"] == WEIGHTS
    assert hub.messages == [f"Model {model.pk} of Plackett: m"]
    event = ModelEvent.objects.get()
    assert (event.what, event.actor, event.reason) == ("pushed", None, f"{hub.url}/me/mine/commit/{'0' * 40}")
    told = capsys.readouterr().out
    assert "3 files" in told and TOKEN not in told


def test_a_repository_that_everybody_reads_must_be_meant(model: ModelVersion, hub: Hub) -> None:
    hub.private["me/mine"] = False
    with pytest.raises(CommandError, match="Everybody may read"):
        call_command("push_model", model.pk, "me/mine")
    assert hub.files == {} and not ModelEvent.objects.exists()
    call_command("push_model", model.pk, "me/mine", public=True)
    assert "config.json" in hub.files


def test_what_the_hub_refuses_is_said(model: ModelVersion, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(CommandError, match="The hub did not take it") as refused:
        call_command("push_model", model.pk, "me/mine")
    assert "hf_wrong" not in str(refused.value) and not ModelEvent.objects.exists()


def test_a_hub_that_does_not_answer_is_named(model: ModelVersion, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(CommandError, match="The hub did not take it"):
            call_command("push_model", model.pk, "me/mine")


def test_nothing_is_sent_without_a_reason_to(
    model: ModelVersion, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in ("mine", "../x", "a/b/c"):
        with pytest.raises(CommandError, match="OWNER/NAME"):
            call_command("push_model", model.pk, name)
    call_command("push_model", model.pk, "me/mine", dry_run=True)
    assert "0 files were sent" in capsys.readouterr().out
    Run.objects.filter(pk=model.run_id).update(suspect=True)
    with pytest.raises(CommandError, match="suspect"):
        call_command("push_model", model.pk, "me/mine")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CommandError, match="HF_TOKEN"):
        call_command("push_model", model.pk, "me/mine", despite_doubts=True)
    assert hub.private == {} and hub.files == {}
