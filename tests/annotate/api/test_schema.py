"""The OpenAPI document: valid, whole, true; and no request drawn from it breaks the server."""

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import schemathesis
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from annotate.models import Project, RankingTask, Snapshot, Webhook, WebhookDelivery
from annotate.services.machines import create_machine
from annotate.services.queue import next_leases
from annotate.services.tokens import create_token
from tests.annotate.api.conftest import ALL_SCOPES, Cast, ClientFor
from tests.annotate.api.test_roles import api_operations, names_aside
from tests.annotate.factories import make_task
from tests.annotate.helpers import submit
from tests.training.django.helpers import make_sampled, make_snapshot, queue_run, queue_try
from training.models import ModelVersion, Worker
from training.services.runs import cancel_run

EXAMPLES = 20
#: By `make chaos`, other ones each time.
MANY_EXAMPLES = 400


def document() -> dict[str, Any]:
    found = SchemaGenerator().get_schema(request=None, public=True)
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


DOCUMENT = document()
APPLICATION = get_wsgi_application()
OPERATIONS = [
    (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if method in {"get", "post", "put", "patch", "delete"}
]


def test_the_document_is_valid_and_made_without_a_warning() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


def test_the_document_has_every_operation_and_so_have_the_drawn_requests() -> None:
    """None is left out of either, those that a worker would carry out included."""
    served = {(method, names_aside(path)) for method, path, _view in api_operations()}
    assert served == {(method, names_aside(path)) for method, path in OPERATIONS}


def test_every_operation_is_named_explained_and_scoped() -> None:
    assert len(OPERATIONS) > 20
    names = set()
    for method, path in OPERATIONS:
        operation = DOCUMENT["paths"][path][method.lower()]
        names.add(operation["operationId"])
        assert "Scope of the token: `" in operation["description"], path
        assert len(operation["description"].splitlines()[0]) > 10, path
        assert {"4XX", "429"} <= set(operation["responses"]), path
        assert "Retry-After" in operation["responses"]["429"]["headers"], path
        assert all("RateLimit" in answer["headers"] for answer in operation["responses"].values()), path
        assert {"token": []} in operation["security"], path
    assert len(names) == len(OPERATIONS)


def test_what_is_read_as_json_says_that_it_has_an_etag() -> None:
    read = [DOCUMENT["paths"][path]["get"] for method, path in OPERATIONS if method == "GET"]
    plain = [one for one in read if "application/json" in one["responses"]["200"].get("content", {})]
    assert len(plain) > 15
    for operation in plain:
        assert "ETag" in operation["responses"]["200"]["headers"] and "304" in operation["responses"]
        assert {"$ref": "#/components/parameters/IfNoneMatch"} in operation["parameters"]
    export = DOCUMENT["paths"]["/api/v1/projects/{slug}/export/"]["get"]
    assert "304" not in export["responses"] and "ETag" not in export["responses"]["200"]["headers"]
    assert {"RateLimit", "RateLimit-Policy", "ETag", "Retry-After"} == set(DOCUMENT["components"]["headers"])


def test_creating_posts_take_a_key() -> None:
    keyed = {
        DOCUMENT["paths"][path]["post"]["operationId"]
        for method, path in OPERATIONS
        if method == "POST" and any(one["name"] == "Idempotency-Key" for one in _parameters(path, "post"))
    }
    created = {
        DOCUMENT["paths"][path]["post"]["operationId"]
        for method, path in OPERATIONS
        if method == "POST" and "201" in DOCUMENT["paths"][path]["post"]["responses"]
    }
    assert created and created <= keyed
    posts = {DOCUMENT["paths"][path]["post"]["operationId"] for method, path in OPERATIONS if method == "POST"}
    # Repeating these is harmless: open leases come first, a time is set, and nothing is made.
    assert posts - keyed == {"next_leases", "extend_lease", "estimate_run"}


def _parameters(path: str, method: str) -> list[dict[str, Any]]:
    """Those of the operation's own, not the ones that it refers to."""
    return [one for one in DOCUMENT["paths"][path][method].get("parameters", []) if "name" in one]


def test_the_document_and_its_page_are_served(cast: Cast) -> None:
    browser = Client()
    browser.force_login(cast.bob)
    served = browser.get("/api/schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    assert served.status_code == 200 and json.loads(served.content)["paths"].keys() == DOCUMENT["paths"].keys()
    assert json.loads(browser.get("/api/schema/?format=json").content) == json.loads(served.content)
    assert browser.get("/api/schema/").content.startswith(b"openapi: 3")
    assert browser.get("/api/schema/?format=html").status_code == 400
    assert browser.get("/api/docs/").status_code == 200
    script = browser.get("/api/docs/", {"script": ""})
    assert script.status_code == 200 and script["Content-Type"].startswith("application/javascript")
    assert Client().get("/api/docs/").status_code == 302
    assert APIClient().get("/api/schema/").status_code == 401


def test_the_document_is_made_once_and_told_like_other_answers(
    cast: Cast, client_for: ClientFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_for(cast.vera)
    first = client.get("/api/schema/?format=json", headers={"Accept-Encoding": "gzip"})
    assert first["Content-Encoding"] == "gzip" and "RateLimit" in first
    monkeypatch.setattr(SchemaGenerator, "get_schema", None)  # nobody makes it again
    assert client.get("/api/schema/?format=json").json()["openapi"]
    assert client.get("/api/schema/?format=json", headers={"If-None-Match": first["ETag"]}).status_code == 304
    assert client.get("/api/schema/", headers={"If-None-Match": first["ETag"]}).status_code == 200


# --- drawn requests --------------------------------------------------------------------------------------------------


@pytest.fixture
def one_transaction(db: None) -> Iterator[None]:
    """Requests through WSGI share the test's connection: the signals that would close it are off."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def whole_answers(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The application behind a server that reads every answer to its end and closes it."""
    answer = APPLICATION(environ, start_response)
    try:
        return [b"".join(answer)]
    finally:
        answer.close()


@pytest.fixture
def things(cast: Cast, project: Project, task: RankingTask, runs_folders: None) -> dict[str, Any]:
    """Names of real things that are Sue's, so that requests get beyond 404. No worker lives."""
    make_task(project)
    snapshot = make_snapshot(project)
    ranking = submit(next_leases(project=project, annotator=cast.sue)[0], cast.sue)
    lease = next_leases(project=project, annotator=cast.sue)[0]
    run = queue_run(snapshot)
    model = make_model(snapshot)
    webhook = Webhook.objects.create(project=project, url="https://93.184.215.14/", events=["run.finished"])
    done = {"state": "delivered", "finished_at": "2026-01-01T00:00:00Z"}
    judged = submit(next_leases(project=project, annotator=cast.bob)[0], cast.bob)
    ended = cancel_run(queue_run(snapshot))
    assert not Worker.objects.exists()
    return {
        "machine": create_machine(project=project, by=cast.sue, name="judge")[0].pk,
        "webhook": webhook.pk,
        "delivery": WebhookDelivery.objects.create(webhook=webhook, event="ping", body="{}", **done).pk,
        "slug": "tales",
        "lease": str(lease.lease_id),
        "ranking": ranking.pk,
        "judged": judged.pk,
        "ended": ended.pk,
        "said": [[str(entry.response_id)] for entry in ranking.entries.all()],
        "prompt": task.prompt_id,
        "snapshot": snapshot.pk,
        "run": run.pk,
        "model": model.pk,
        "sampled": make_sampled(snapshot, [["one", "two"]]).pk,
        "tried": queue_try(project).pk,
        "order": [[str(pk)] for pk in lease.presented_order or ()],
    }


def make_model(snapshot: Snapshot) -> ModelVersion:
    made_by = queue_run(snapshot)
    model = ModelVersion.objects.create(
        project=snapshot.project, name="m", kind="reward", run=made_by, folder="runs/1/model", size_bytes=1
    )
    model.path.mkdir(parents=True)
    (model.path / "config.json").write_text("{}")
    return model


#: Addresses that take a thing of a kind of its own.
OF_ITS_KIND = {
    "/api/v1/runs/{run}/send/": {"run": "sampled"},
    "/api/v1/runs/{run}/resume/": {"run": "ended"},
    "/api/v1/projects/{slug}/tries/{run}/": {"run": "tried"},
    "/api/v1/projects/{slug}/tries/{run}/cpu/": {"run": "tried"},
    "/api/v1/rankings/{ranking}/review/": {"ranking": "judged"},
}


def named_by(path: str, method: str, things: dict[str, Any]) -> dict[str, Any]:
    """The real things that an address names."""
    names = {one["name"] for one in _parameters(path, method.lower()) if one["in"] == "path"}
    return {name: things[OF_ITS_KIND.get(path, {}).get(name, name)] for name in names}


def meant(case: Any, path: str, things: dict[str, Any]) -> Any:
    """The drawn request with names of real things where it has drawn ones."""
    real = {"project": "tales", "base_model": "tiny", "reward_model": f"registry:{things['model']}"}
    real |= {"judge": real["reward_model"], "supersedes": things["ranking"], "ranking": things["order"]}
    real |= {"version": 0, "url": "https://93.184.215.14/"}
    real |= {name: things[name] for name in ("snapshot", "lease")}
    real |= {"ranking": things["said"]} if path.endswith("/revise/") else {}
    if isinstance(case.body, dict):
        case.body = {name: real.get(name, value) for name, value in case.body.items()} | whole_body(path, things)
        if path.endswith("/withdrawals/"):  # one thing at a time
            case.body = {"prompt": things["prompt"], "dry_run": case.body.get("dry_run", True)}
    if path == "/api/v1/runs/compare/":
        case.query = {"run": [things["run"], things["ended"]]}
    return case


def whole_body(path: str, things: dict[str, Any]) -> dict[str, Any]:
    """What has to stand in a body beside what was drawn, for some of them to be done."""
    if path.endswith("/revise/"):
        return {"strengths": None, "unranked": [], "ratings": {}, "flags": {}, "rewrite": None}
    if path.endswith("/tries/"):
        asked = {"messages": [{"role": "user", "content": "Tea?"}], "model": "tiny", "model_2": "", "reward_model": ""}
        return asked | {"samples": 1, "temperature": 1.0}
    return {}


def try_requests(method: str, path: str, cast: Cast, things: dict[str, Any], **how: Any) -> None:
    """Draws requests to an operation, sends them, and takes back what they did."""
    load_all_checks()
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.app = whole_answers
    operation = schema[path][method]
    _, secret = create_token(user=cast.sue, name="fuzz", scopes=ALL_SCOPES)
    checks = [CHECKS.get_one(name) for name in CHECKED]
    good = operation.as_strategy(GenerationMode.POSITIVE, path_parameters=named_by(path, method, things) or None)
    drawn = st.one_of(
        good, good.map(lambda case: meant(case, path, things)), operation.as_strategy(GenerationMode.NEGATIVE)
    )

    @settings(deadline=None, database=None, suppress_health_check=HealthCheck, **how)
    @given(case=drawn)
    def holds(case: Any) -> None:
        with transaction.atomic():
            answer = case.call(headers={"Authorization": f"Token {secret}", "Accept-Encoding": "identity"})
            transaction.set_rollback(True)
        case.validate_response(answer, checks=checks)
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error"}

    holds()


CHECKED = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
every_operation = pytest.mark.parametrize(
    ("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS]
)


@pytest.mark.slow
@every_operation
def test_no_drawn_request_breaks_the_server(
    method: str, path: str, cast: Cast, things: dict[str, Any], one_transaction: None
) -> None:
    try_requests(method, path, cast, things, max_examples=EXAMPLES, derandomize=True)


@pytest.mark.chaos
@every_operation
def test_many_drawn_requests_break_the_server_no_more(
    method: str, path: str, cast: Cast, things: dict[str, Any], one_transaction: None
) -> None:
    try_requests(method, path, cast, things, max_examples=MANY_EXAMPLES)


@pytest.fixture
def runs_folders(settings: Any, tmp_path: Any) -> None:
    settings.RUNS_ROOT, settings.MODELS_ROOT = tmp_path / "runs", tmp_path / "models"
