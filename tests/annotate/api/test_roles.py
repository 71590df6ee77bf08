"""docs/roles.md is the matrix of who may do what: every cell is tried, every address must be in it."""

import io
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import DjangoDbBlocker
from rest_framework.test import APIClient
from rest_framework.views import APIView

from annotate.api.authentication import scope_for
from annotate.interchange import native
from annotate.models import Membership, Project, RankingTask, Role, Slot, Snapshot, User, Webhook, WebhookDelivery
from annotate.pages.setup_forms import Setup
from annotate.selectors.projects import current_version
from annotate.services.imports import import_records
from annotate.services.invitations import create_invitation
from annotate.services.machines import create_machine
from annotate.services.queue import next_leases
from annotate.services.tokens import create_token
from annotate.services.uploads import keep_upload
from tests.annotate.api.conftest import Cast, make_cast, token_client
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit
from tests.training.django.helpers import (
    finish_try,
    make_sampled,
    make_snapshot,
    make_worker,
    queue_run,
    queue_try,
)
from training.models import ModelVersion, Run

DOCS = Path(__file__).resolve().parents[3] / "docs"
COLUMNS = ("Anonymous", "Outsider", "Viewer", "Annotator", "Reviewer", "Manager", "Engineer", "Superuser")
CELLS = {"yes", "own", "401", "403", "404", "login"}
# The log-in and what belongs to it, all of allauth's; the admin's index stands for the admin.
ELSEWHERE = ("/accounts/", "/admin/")
OURS = "/accounts/tokens/"


@dataclass(frozen=True)
class Row:
    action: str
    method: str
    path: str
    scope: str
    cells: dict[str, str]


def rows() -> list[Row]:
    """The lines of the table."""
    found = []
    for line in (DOCS / "roles.md").read_text().splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        request = re.fullmatch(r"`([A-Z]+) (/\S*)`", parts[1]) if len(parts) == 3 + len(COLUMNS) else None
        if request:
            found.append(Row(parts[0], request[1], request[2], parts[2], dict(zip(COLUMNS, parts[3:], strict=True))))
    return found


ROWS = rows()


def test_the_table_can_be_read() -> None:
    assert len(ROWS) > 40
    assert {cell for row in ROWS for cell in row.cells.values()} == CELLS
    requests = [(row.method, row.path) for row in ROWS]
    assert len(set(requests)) == len(requests)


# --- every address is in it ------------------------------------------------------------------------------------------


def addresses() -> Iterator[tuple[str, Any]]:
    """(path with {names}, view) of everything the server answers at."""

    def walk(patterns: list[URLPattern | URLResolver], before: str) -> Iterator[tuple[str, Any]]:
        for one in patterns:
            path = before + str(one.pattern)
            if isinstance(one, URLResolver):
                yield from walk(one.url_patterns, path)
            else:
                yield re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path), one.callback

    for path, view in walk(get_resolver().url_patterns, "/"):
        if path.startswith(OURS) or not path.startswith((*ELSEWHERE, "/^api/")):
            yield path, view


def names_aside(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def test_every_address_is_in_the_table() -> None:
    listed = {names_aside(row.path) for row in ROWS}
    served = {names_aside(path) for path, _ in addresses()}
    assert len(served) > 20
    assert sorted(served - listed) == []
    assert sorted(listed - served - {"/admin/"}) == []


def api_operations() -> list[tuple[str, str, type[APIView]]]:
    """(method, path, view) of every operation under /api/v1/."""
    views = [(path, view.cls) for path, view in addresses() if path.startswith("/api/v1/")]
    return [
        (method.upper(), path, view)
        for path, view in views
        for method in view.http_method_names
        if method not in {"options", "head", "trace"} and hasattr(view, method)
    ]


def test_every_operation_of_the_api_is_in_the_table_with_its_scope() -> None:
    listed = {(row.method, names_aside(row.path)): row.scope for row in ROWS}
    operations = api_operations()
    assert len(operations) > 20
    wrong = {
        f"{method} {path}": (listed.get((method, names_aside(path))), str(scope_for(view, method)))
        for method, path, view in operations
        if listed.get((method, names_aside(path))) != scope_for(view, method)
    }
    assert wrong == {}


def test_every_operation_of_the_api_is_in_its_reference() -> None:
    guide = names_aside((DOCS / "api-reference.md").read_text())
    operations = api_operations()
    assert [f"{method} {path}" for method, path, _ in operations if f"{method} {names_aside(path)}" not in guide] == []


def test_nothing_under_the_api_is_open() -> None:
    for _, path, view in api_operations():
        assert view.permission_classes, path
        assert [one.__name__ for one in view.permission_classes] == ["HasScope"], path


# --- every cell is tried ---------------------------------------------------------------------------------------------


@dataclass
class World:
    """What the paths name, and who asks."""

    project: Project
    dora: User
    people: dict[str, User | None]
    snapshot: int
    run: int
    model: int
    settled: dict[str, int]

    def lease_of(self, user: User) -> Slot:
        return next_leases(project=self.project, annotator=user)[0]


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    """One for all rows: each takes back what it did. Nothing of it is ever committed."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield make_world()
        transaction.set_rollback(True)


def make_world() -> World:
    project = make_project("tales", overlap=2)
    cast = make_cast(project)
    for _ in range(3):
        make_task(project, overlap=9)
    snapshot = make_snapshot(project)
    run = queue_run(snapshot)
    other = queue_run(snapshot)
    model = ModelVersion.objects.create(
        project=project, name="m", kind="reward", run=other, folder="runs/1/model", size_bytes=1
    )
    model.path.mkdir(parents=True, exist_ok=True)
    (model.path / "config.json").write_text("{}")
    people: dict[str, User | None] = {
        "Anonymous": None,
        "Outsider": cast.charlie,
        "Viewer": cast.vera,
        "Annotator": cast.bob,
        "Reviewer": cast.rita,
        "Manager": make_user("mona", project=project, role=Role.MANAGER),
        "Engineer": cast.eve,
        "Superuser": cast.sue,
    }
    submit(next_leases(project=project, annotator=cast.dora)[0], cast.dora)
    return World(project, cast.dora, people, snapshot.pk, run.pk, model.pk, for_managers(project, cast))


def for_managers(project: Project, cast: Cast) -> dict[str, int]:
    """What a manager decides about: a held task, a member, an invitation, an import."""
    task = make_task(project)
    RankingTask.objects.filter(pk=task.pk).update(state="held")
    invitation, _ = create_invitation(project=project, by=cast.alice, role="annotator")
    (record,) = native.read(io.BytesIO(json.dumps(RECORD).encode()))
    ranked = RECORD | {"prompt": "s?", "ranking": [["a"], ["b"]], "annotator": "Ann"}
    import_records(project=project, records=[*native.read(io.BytesIO(json.dumps(ranked).encode()))])
    batch = import_records(project=project, records=[record]).batch_id
    assert batch is not None
    member = Membership.objects.get(user=make_user("mel", project=project))
    machine, _token = create_machine(project=project, by=cast.alice, name="judge")
    url = "https://93.184.215.14/"
    webhook = Webhook.objects.create(project=project, url=url, events=["ranking.submitted"])
    done = {"state": "delivered", "finished_at": "2026-01-01T00:00:00Z"}
    delivery = WebhookDelivery.objects.create(webhook=webhook, event="ping", body="{}", **done)
    settled = {
        "prompt": task.prompt_id,
        "response": task.task_responses.values_list("response", flat=True)[0],
        "task": task.pk,
        "member": member.pk,
        "invitation": invitation.pk,
        "batch": batch,
        "annotator": User.objects.get(username=f"imported:{project.slug}:Ann").pk,
    }
    return settled | {"webhook": webhook.pk, "delivery": delivery.pk, "machine": machine.pk}


def ranking_body(slot: Slot) -> dict[str, Any]:
    assert slot.presented_order is not None
    return {"ranking": [[str(pk)] for pk in slot.presented_order]}


def setup_body(world: World) -> dict[str, str]:
    """The set-up form as it was loaded."""
    return dict(Setup.of(world.project, current_version(world.project)).hidden())


def two_runs(world: World) -> list[int]:
    return [world.run, ModelVersion.objects.values_list("run_id", flat=True).get(pk=world.model)]


def compared(slot: Slot) -> dict[str, Any]:
    assert slot.presented_order is not None
    return {"lease": str(slot.lease_id), "a": slot.presented_order[0], "b": slot.presented_order[1]}


#: Requests that name a lease elsewhere than in their path.
OF_A_LEASE = {"/api/v1/projects/{slug}/rankings/", "/p/{slug}/rank/submit/", "/p/{slug}/rank/difference/"}
Body = Callable[[World, Slot], Any]
RECORD = {"prompt": "p?", "responses": [{"id": "a", "text": "1"}, {"id": "b", "text": "2"}]}
HOOK = {"url": "https://93.184.215.14/x", "events": ["ranking.submitted"]}
START = {"base_model": "tiny", "kind": "reward"}
# A good body for every request that needs one, so that "yes" means done and not merely let in.
BODIES: dict[tuple[str, str], Body] = {
    ("POST", "/api/v1/projects/"): lambda world, slot: {"slug": "new", "name": "New"},
    ("PATCH", "/api/v1/projects/{slug}/"): lambda world, slot: {"name": "New", "rules": {"ties": False}},
    ("POST", "/api/v1/projects/{slug}/prompts/"): lambda world, slot: {"records": [RECORD]},
    ("POST", "/api/v1/leases/{lease}/skip/"): lambda world, slot: {"reason": "long"},
    ("PUT", "/api/v1/leases/{lease}/draft/"): lambda world, slot: {"version": 0, "body": {}},
    ("POST", "/api/v1/projects/{slug}/rankings/"): lambda world, slot: (
        {"lease": str(slot.lease_id)} | ranking_body(slot)
    ),
    ("POST", "/api/v1/projects/{slug}/snapshots/"): lambda world, slot: {"name": "s"},
    ("GET", "/api/v1/runs/compare/"): lambda world, slot: {"run": two_runs(world)},
    ("GET", "/runs/compare/"): lambda world, slot: {"run": two_runs(world)},
    ("POST", "/api/v1/pipelines/"): lambda world, slot: {
        "project": "tales",
        "snapshot": world.snapshot,
        "base_model": "tiny",
        "stages": ["reward"],
    },  # fmt: skip
    ("POST", "/api/v1/runs/"): lambda world, slot: START | {"project": "tales", "snapshot": world.snapshot},
    ("POST", "/api/v1/runs/{run}/checkpoints/"): lambda world, slot: {"keep": True},
    ("POST", "/runs/{run}/keep/"): lambda world, slot: {"keep": "1"},
    ("POST", "/api/v1/models/{model}/promote/"): lambda world, slot: {"stage": "candidate"},
    ("POST", "/models/{model}/promote/"): lambda world, slot: {"stage": "candidate"},
    ("POST", "/api/v1/projects/{slug}/withdrawals/"): lambda world, slot: {"annotator": "dora"},
    ("POST", "/api/v1/rankings/{ranking}/review/"): lambda world, slot: {"verdict": "accepted"},
    ("POST", "/p/{slug}/answers/{ranking}/review/"): lambda world, slot: {"verdict": "returned", "note": "Why?"},
    ("POST", "/api/v1/leases/{lease}/flag/"): lambda world, slot: {"kind": "unclear"},
    ("POST", "/api/v1/projects/{slug}/webhooks/"): lambda world, slot: HOOK,
    ("PATCH", "/api/v1/projects/{slug}/webhooks/{webhook}/"): lambda world, slot: {"on": False},
    ("POST", "/api/v1/projects/{slug}/machines/"): lambda world, slot: {"name": "scorer"},
    ("PATCH", "/api/v1/projects/{slug}/machines/{machine}/"): lambda world, slot: {"weight": 0.5},
    ("POST", "/p/{slug}/machines/"): lambda world, slot: {"name": "scorer", "open_lease_limit": 9},
    ("POST", "/p/{slug}/machines/{machine}/"): lambda world, slot: {"weight": 1, "open_lease_limit": 9},
    ("POST", "/p/{slug}/withdraw/"): lambda world, slot: {"text": "good answer", "step": "search"},
    ("POST", "/p/{slug}/webhooks/"): lambda world, slot: HOOK,
    ("POST", "/p/{slug}/webhooks/{webhook}/"): lambda world, slot: HOOK,
    ("POST", "/p/{slug}/rank/submit/"): lambda world, slot: {"lease": str(slot.lease_id)} | ranking_body(slot),
    ("POST", "/p/{slug}/rank/read/"): lambda world, slot: {"version": 1},
    ("GET", "/p/{slug}/rank/difference/"): lambda world, slot: compared(slot),
    ("POST", "/accounts/tokens/"): lambda world, slot: {"name": "loader", "scopes": ["read"], "days": "7"},
    ("POST", "/preferences/"): lambda world, slot: {"theme": "dark"},
    ("POST", "/p/{slug}/snapshots/"): lambda world, slot: {"name": "s", "annotator_kinds": "human", "kinds": "normal"},
    ("POST", "/p/{slug}/setup/"): lambda world, slot: setup_body(world),
    ("POST", "/p/{slug}/setup/preview/"): lambda world, slot: setup_body(world),
    ("POST", "/projects/new/"): lambda world, slot: {"name": "New one", "overlap": 1, "preset": "plain"},
    ("POST", "/p/{slug}/people/"): lambda world, slot: {"role": "annotator"},
    ("POST", "/p/{slug}/people/{member}/"): lambda world, slot: {"role": "reviewer", "weight": 1},
    ("POST", "/p/{slug}/import/"): lambda world, slot: {
        "format": "plackett",
        "file": SimpleUploadedFile("more.jsonl", json.dumps(RECORD | {"prompt": "q?"}).encode()),
    },
    ("POST", "/p/{slug}/import/{upload}/"): lambda world, slot: {"do": "import"},
    ("POST", "/api/v1/runs/estimate/"): lambda world, slot: START | {"project": "tales", "snapshot": world.snapshot},
    ("POST", "/p/{slug}/train/estimate/"): lambda world, slot: {"base_model": "tiny", "snapshot": world.snapshot},
    ("POST", "/p/{slug}/train/"): lambda world, slot: {"base_model": "tiny", "snapshot": world.snapshot},
    ("POST", "/api/v1/projects/{slug}/tries/"): lambda world, slot: {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Tea?"}],
    },  # fmt: skip
    ("POST", "/p/{slug}/try/"): lambda world, slot: {
        "model": "tiny",
        "role": ["user"],
        "content": ["Tea?"],
        "samples": 1,
        "temperature": 1,
        "max_response_length": 9,
    },  # fmt: skip
    ("POST", "/p/{slug}/pipeline/"): lambda world, slot: {
        "base_model": "tiny",
        "snapshot": world.snapshot,
        "stages": ["reward"],
    },  # fmt: skip
}


def ask(row: Row, world: World, user: User | None, *, holder: User) -> Any:
    """Carries the row's request out as the user, on things that belong to the holder."""
    slot, ranking = Slot(lease_id=uuid.uuid4(), presented_order=[1, 2]), 0
    if "{lease}" in row.path or "{ranking}" in row.path or ("own" in row.cells.values() and row.path in OF_A_LEASE):
        slot = world.lease_of(holder)
    if "{ranking}" in row.path:
        ranking = submit(slot, holder).pk
    path = row.path.format(
        slug=world.project.slug,
        lease=slot.lease_id,
        ranking=ranking,
        snapshot=world.snapshot,
        run=_run_for(row, world),
        model=world.model,
        number=1,
        **{"try": _tried(row, world)} if "{try}" in row.path else {},
        token=create_token(user=holder, name="t", scopes=["read"])[0].pk if "{token}" in row.path else "",
        upload=_uploaded(world, holder) if "{upload}" in row.path else "",
        **world.settled,
    )
    body = BODIES.get((row.method, row.path), lambda world, slot: {})(world, slot)
    if row.path.endswith("{ranking}/revise/"):
        body = ranking_body(slot) | {"supersedes": ranking}
    if path.startswith("/api/") and path != "/api/docs/":
        client = token_client(user) if user else APIClient()
        return getattr(client, row.method.lower())(path, body or None if row.method == "GET" else body)
    browser = Client()
    if user:
        browser.force_login(user)
    if row.method == "GET":
        return browser.get(path, body)
    if path.startswith(("/p/tales/rank/", "/preferences/")):
        key = {"Idempotency-Key": "k"}
        return browser.post(path, body, content_type="application/json", headers=key)
    return browser.post(path, body)


def _uploaded(world: World, holder: User) -> str:
    """A file of the holder's that waits to be imported."""
    file = io.BytesIO(json.dumps(RECORD | {"prompt": "r?"}).encode())
    upload = keep_upload(project=world.project, by=holder, file=file, name="r.jsonl", size=9, format="plackett")
    return str(upload.pk)


def _run_for(row: Row, world: World) -> int:
    if row.path.endswith("/resume/"):
        Run.objects.filter(pk=world.run).update(state="cancelled", finished_at="2026-01-01T00:00:00Z")
    if row.path.endswith("/send/"):
        return _sampled(world)
    return world.run


def _sampled(world: World) -> int:
    """A sampling run with two responses to one prompt."""
    run = make_sampled(Snapshot.objects.get(pk=world.snapshot), [["one", "another"]])
    return run.pk


def _tried(row: Row, world: World) -> int:
    """A waiting try, and a worker of processors that could take it; or one that is over, if its responses are sent."""
    tried = queue_try(world.project)
    if row.path.endswith("/send/"):
        finish_try(tried, ["one", "another"])
    if row.path.endswith("/cpu/"):
        make_worker("cpu")
    return tried.pk


def outcome(answer: Any) -> str:
    if answer.status_code == 302 and "/login/" in answer["Location"]:
        return "login"
    return "yes" if answer.status_code < 400 else str(answer.status_code)


@pytest.mark.django_db
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_everybody_may_do_exactly_what_the_table_says(row: Row, world: World) -> None:
    seen = {}
    for column, cell in row.cells.items():
        user = world.people[column]
        with transaction.atomic():
            answer = ask(row, world, user, holder=user if user and cell == "own" else world.dora)
            if getattr(answer, "streaming", False):
                b"".join(answer.streaming_content)
            seen[column] = outcome(answer)
            transaction.set_rollback(True)
        if cell == "own":
            assert seen[column] == "yes", f"{column}: {answer.content!r}"
            seen[column] = "own"
            with transaction.atomic():
                assert outcome(ask(row, world, user, holder=world.dora)) == "404", f"{column} on what is Dora's"
                transaction.set_rollback(True)
    assert seen == row.cells
