"""Lists: narrowed, ordered, walked page by page, and never by a parameter that nobody knows."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from annotate.models import Project, Prompt, Ranking, Role, SplitGroup, Webhook, WebhookDelivery
from annotate.services.machines import create_machine
from annotate.services.queue import next_leases
from annotate.services.rankings import submit_ranking
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of
from tests.annotate.api.test_schema import DOCUMENT, OPERATIONS
from tests.annotate.factories import make_project, make_task, sha256
from tests.annotate.helpers import answer_of, submit
from tests.training.django.helpers import make_snapshot, make_worker, queue_run
from training.models import ModelVersion

V1 = "/api/v1/"
RANKINGS = f"{V1}projects/tales/rankings/"
PROMPTS = f"{V1}projects/tales/prompts/"
LISTS = [path for method, path in OPERATIONS if method == "GET" and any(
    one["name"] == "cursor" for one in DOCUMENT["paths"][path]["get"].get("parameters", []) if "name" in one
)]  # fmt: skip
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def alice(cast: Cast, client_for: ClientFor) -> APIClient:
    return client_for(cast.alice)


def record(number: int, **more: Any) -> dict[str, Any]:
    texts = [{"id": "a", "text": f"{number}a"}, {"id": "b", "text": f"{number}b"}]
    return {"external_id": f"q{number}", "prompt": f"{number}?", "responses": texts, **more}


def ids(client: APIClient, path: str, **query: Any) -> list[Any]:
    answer = client.get(path, query)
    assert answer.status_code == 200, answer.content
    return [id_of(row) for row in answer.json()["results"]]


def id_of(row: dict[str, Any]) -> Any:
    return row.get("id", row.get("snapshot"))


def walk(client: APIClient, path: str, *, between: Any = None, **query: Any) -> list[Any]:
    """The ids of all pages, each of two rows; `between` is called after the first."""
    page = client.get(path, {"limit": 2} | query).json()
    found = [id_of(row) for row in page["results"]]
    if between is not None:
        between()
    while page["next"]:
        page = client.get(path, {"limit": 2, "cursor": page["next"]} | query).json()
        found += [id_of(row) for row in page["results"]]
    return found


# --- what is known ---------------------------------------------------------------------------------------------------


def test_every_list_takes_an_order() -> None:
    assert len(LISTS) == 11
    for path in LISTS:
        names = {one.get("name"): one for one in DOCUMENT["paths"][path]["get"]["parameters"]}
        assert {"id", "-id"} <= set(names["ordering"]["schema"]["enum"]), path


@pytest.mark.parametrize("path", [f"{V1}me/", RANKINGS, f"{V1}runs/", f"{V1}projects/tales/export/"])
def test_a_parameter_that_is_not_known_is_refused_by_name(alice: APIClient, project: Project, path: str) -> None:
    fields = error_of(alice.get(path, {"taks": "1"}), 400, "invalid")["fields"]
    assert list(fields) == ["taks"] and fields["taks"].startswith("Unknown. Known here: ")


def test_posts_refuse_unknown_parameters_too_and_none_comes_twice(alice: APIClient, project: Project) -> None:
    records = {"records": [record(1)]}
    assert alice.post(f"{PROMPTS}?dryrun=1", records).status_code == 400 and not Prompt.objects.exists()
    assert list(error_of(alice.get(f"{RANKINGS}?task=1&task=2"), 400)["fields"]) == ["task"]
    assert alice.post(f"{PROMPTS}?format=plackett&dry_run=1", records).status_code == 200


def test_every_documented_parameter_is_known_to_its_operation(alice: APIClient, cast: Cast, project: Project) -> None:
    """Each is sent with a value that none takes: whatever is said of it, it is not that it is unknown."""
    asked = 0
    for method, path in OPERATIONS:
        for one in DOCUMENT["paths"][path][method.lower()].get("parameters", []):
            if one.get("in") == "query":
                address = path.replace("{slug}", "tales").replace("{run}", "1").replace("{webhook}", "1")
                answer = getattr(alice, method.lower())(f"{address}?{one['name']}=%C3%A9")
                said = answer.json()["error"]["fields"] if answer.status_code == 400 else {}
                assert not said.get(one["name"], "").startswith("Unknown"), (path, one["name"])
                asked += 1
    assert asked > 50


# --- narrowed --------------------------------------------------------------------------------------------------------


@pytest.fixture
def judged(project: Project, cast: Cast) -> dict[str, Ranking]:
    """A ranking of Bob's that he revised, one of Dora's, and one of a machine's."""
    for _ in range(2):
        make_task(project)
    first = submit(next_leases(project=project, annotator=cast.bob)[0], cast.bob)
    slot = next_leases(project=project, annotator=cast.dora)[0]
    assert slot.lease_id is not None
    dora = submit_ranking(
        annotator=cast.dora, lease_id=slot.lease_id, answer=answer_of(slot), source=Ranking.Source.PAGE
    )
    member, _ = create_machine(project=project, by=cast.alice, name="judge")
    machine = submit(next_leases(project=project, annotator=member.user)[0], member.user)
    return {"first": first, "dora": dora, "machine": machine}


def test_rankings_can_be_narrowed(
    alice: APIClient, cast: Cast, client_for: ClientFor, judged: dict[str, Ranking]
) -> None:
    first, dora, machine = (str(judged[name].pk) for name in ("first", "dora", "machine"))
    bob = client_for(cast.bob)
    revision = bob.post(f"{V1}rankings/{first}/revise/", {
        "supersedes": int(first), "ranking": [[str(pk)] for pk in judged["first"].presented_order],
    }).json()["id"]  # fmt: skip
    everything = [first, dora, machine, revision]
    assert ids(alice, RANKINGS) == everything
    assert ids(alice, RANKINGS, annotator="bob") == [first, revision] == ids(bob, RANKINGS, annotator="me")
    assert ids(bob, RANKINGS, annotator="dora") == [] == ids(alice, RANKINGS, annotator="me")
    assert ids(alice, RANKINGS, latest="1") == [dora, machine, revision]
    assert ids(alice, RANKINGS, latest="0") == [first]
    assert ids(alice, RANKINGS, annotator_kind="machine") == [machine]
    assert ids(alice, RANKINGS, source="page") == [dora]
    assert ids(alice, RANKINGS, counted="true") == everything and ids(alice, RANKINGS, counted="0") == []
    assert ids(alice, RANKINGS, kind="normal") == everything and ids(alice, RANKINGS, kind="gold") == []
    assert ids(alice, RANKINGS, withdrawn="1") == [] and ids(alice, RANKINGS, withdrawn="0") == everything
    assert ids(alice, RANKINGS, submitted_since=judged["dora"].submitted_at.isoformat())[0] != first
    assert ids(alice, RANKINGS, submitted_before="2026-01-01T00:00:00+01:00") == []
    assert ids(alice, RANKINGS, submitted_since="9169-08-15T11:07:49+22:17") == [], "more than Postgres takes"


def test_an_instant_without_an_unescaped_plus_is_understood(alice: APIClient, judged: dict[str, Ranking]) -> None:
    assert alice.get(f"{RANKINGS}?submitted_since=2020-01-01T00:00:00+01:00").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"counted": "maybe"},
        {"source": "dream"},
        {"submitted_since": "yesterday"},
        {"submitted_since": "2026-01-01T00:00:00"},
        {"submitted_before": "2026-02-30T00:00:00Z"},
        {"submitted_before": "0001-01-01T00:00:00+01:00"},
        {"ordering": "rationale"},
        {"ordering": "--id"},
    ],
)
def test_a_filter_that_makes_no_sense_is_400(alice: APIClient, project: Project, query: dict[str, str]) -> None:
    assert list(error_of(alice.get(RANKINGS, query), 400, "invalid")["fields"]) == list(query)


def test_prompts_can_be_narrowed(alice: APIClient, project: Project) -> None:
    alice.post(PROMPTS, {"records": [record(1, split="test", tags=["hard", "maths"], language="en")]})
    alice.post(PROMPTS, {"records": [record(2, split="train", tags=["hardly"])]})
    one, two = (str(pk) for pk in Prompt.objects.order_by("pk").values_list("pk", flat=True))
    batch = Prompt.objects.get(pk=two).batch_id
    assert ids(alice, PROMPTS, external_id="q1") == ids(alice, PROMPTS, split="test") == [one]
    assert ids(alice, PROMPTS, tag="hard") == ids(alice, PROMPTS, language="en") == [one]
    assert ids(alice, PROMPTS, batch=batch) == [two]
    assert ids(alice, PROMPTS, withdrawn="0", created_since="2020-01-01T00:00:00Z") == [one, two]
    assert ids(alice, PROMPTS, created_before="2020-01-01T00:00:00Z") == []


def test_the_other_lists_can_be_narrowed(alice: APIClient, cast: Cast, client_for: ClientFor, project: Project) -> None:
    make_project("closed", archived_at=START).memberships.create(user=cast.alice, role=Role.VIEWER)
    slugs = [
        row["slug"] for row in alice.get(f"{V1}projects/", {"archived": "0", "ordering": "-slug"}).json()["results"]
    ]
    assert slugs == ["tales"]
    snapshot = make_snapshot(project)
    path = f"{V1}projects/tales/snapshots/"
    assert ids(alice, path, state="frozen") == [snapshot.pk] and ids(alice, path, state="withdrawn") == []
    run, other = queue_run(snapshot), queue_run(snapshot, kind="sft")
    assert ids(alice, f"{V1}runs/", kind="sft", state="queued", suspect="0", snapshot=snapshot.pk) == [other.pk]
    assert ids(alice, f"{V1}runs/", project="tales", ordering="-id") == [other.pk, run.pk]
    ModelVersion.objects.create(project=project, name="m", kind="reward", run=run, folder="1/model", size_bytes=1)
    assert len(ids(alice, f"{V1}models/", kind="reward", stage="new", deleted="0", shared="0")) == 1
    assert ids(alice, f"{V1}models/", kind="policy") == ids(alice, f"{V1}models/", stage="archived") == []
    make_worker("cpu")
    workers = alice.get(f"{V1}workers/", {"queue": "cpu", "alive": "1"}).json()["results"]
    assert len(workers) == 1 and not alice.get(f"{V1}workers/", {"queue": "gpu"}).json()["results"]


def test_machines_and_withdrawals_can_be_narrowed(alice: APIClient, cast: Cast, project: Project) -> None:
    path = f"{V1}projects/tales/machines/"
    kept, sent = (create_machine(project=project, by=cast.alice, name=name)[0] for name in ("kept", "sent"))
    alice.patch(f"{path}{kept.pk}/", {"fills_places": True})
    alice.delete(f"{path}{sent.pk}/")
    assert ids(alice, path, active="1") == ids(alice, path, fills_places="1") == [kept.pk]
    assert ids(alice, path, active="0") == ids(alice, path, fills_places="0") == [sent.pk]
    task = make_task(project)
    alice.post(f"{V1}prompts/{task.prompt_id}/withdraw/", {})
    path = f"{V1}projects/tales/withdrawals/"
    assert len(ids(alice, path, kind="prompt", started_since="2020-01-01T00:00:00Z")) == 1
    assert ids(alice, path, kind="ranking") == ids(alice, path, started_before="2020-01-01T00:00:00Z") == []


def test_webhooks_and_their_deliveries_can_be_narrowed(alice: APIClient, project: Project) -> None:
    hook = Webhook.objects.create(project=project, url="https://a.example/", events=["run.finished"])
    done = WebhookDelivery.objects.create(
        webhook=hook, event="ping", body="{}", state="delivered", finished_at=START, created_at=START
    )
    path = f"{V1}projects/tales/webhooks/"
    assert ids(alice, path, event="run.finished", on="1") == [hook.pk]
    assert ids(alice, path, event="task.completed") == ids(alice, path, on="0") == []
    assert ids(alice, f"{path}{hook.pk}/deliveries/", state="delivered", event="ping") == [done.pk]
    assert ids(alice, f"{path}{hook.pk}/deliveries/", state="waiting") == []
    assert ids(alice, f"{path}{hook.pk}/deliveries/", created_since=(START + timedelta(1)).isoformat()) == []


# --- ordered ---------------------------------------------------------------------------------------------------------


def arrive(client: APIClient, *days: int) -> list[str]:
    """Rankings that were submitted on these days; their ids in the order in which they came in."""
    known = Ranking.objects.count()
    records = [
        record(known + number, ranking=[["a"], ["b"]], submitted_at=(START + timedelta(day)).isoformat())
        for number, day in enumerate(days)
    ]
    assert client.post(PROMPTS, {"records": records}).json()["written"] == len(days)
    return [str(pk) for pk in Ranking.objects.order_by("pk").values_list("pk", flat=True)[known:]]


def test_pages_in_any_order_hold_each_row_once_while_rows_arrive(
    alice: APIClient, cast: Cast, project: Project
) -> None:
    days = [3, 1, 2, 1, 1, 3, 1]  # equal keys on both sides of an edge between pages
    known = arrive(alice, *days)
    rising = sorted(known, key=lambda pk: (days[known.index(pk)], int(pk)))
    assert walk(alice, RANKINGS, ordering="submitted_at") == rising
    assert walk(alice, RANKINGS, ordering="-submitted_at") == rising[::-1]
    assert walk(alice, RANKINGS, ordering="-id") == known[::-1]
    late: list[str] = []

    def more() -> None:
        late.extend(arrive(alice, 0, 2, 9))

    seen = walk(alice, RANKINGS, ordering="submitted_at", between=more)
    assert [pk for pk in seen if pk in known] == rising, "each that was there once, in its order"
    assert [pk for pk in seen if pk in late] == late[1:], "what arrived behind the cursor is not brought up"
    assert walk(alice, RANKINGS, ordering="-submitted_at", submitted_before=START.isoformat()) == []


def brought_in(project: Project, *days: int) -> list[str]:
    """Prompts that came on these days, by SQL, since nobody may say when something came; their ids in that order."""
    group = SplitGroup.objects.create(project=project, key="g", key_sha256=sha256("g"), split="train")
    with connection.cursor() as cursor:
        for number, day in enumerate(days):
            cursor.execute(
                "INSERT INTO annotate_prompt (project_id, content_sha256, messages, split_group_id, language, tags,"
                " extra, created_at) VALUES (%s, %s, '[]', %s, '', '[]', '{}', %s)",
                [project.pk, sha256(str(number)), group.pk, START + timedelta(day)],
            )
    return [str(pk) for pk in Prompt.objects.order_by("pk").values_list("pk", flat=True)]


def test_prompts_come_in_the_order_of_their_times_too(alice: APIClient, project: Project) -> None:
    days = [3, 1, 2, 1, 1, 3, 1]
    known = brought_in(project, *days)
    rising = sorted(known, key=lambda pk: (days[known.index(pk)], int(pk)))
    assert walk(alice, PROMPTS, ordering="created_at") == rising
    assert walk(alice, PROMPTS, ordering="-created_at") == rising[::-1]
    second = (START + timedelta(2)).isoformat()
    assert walk(alice, PROMPTS, ordering="created_at", created_since=second) == rising[4:]
    assert walk(alice, PROMPTS, ordering="-created_at", created_before=second) == rising[3::-1]


def test_a_page_of_prompts_by_time_is_read_from_an_index(alice: APIClient, project: Project) -> None:
    brought_in(project, 1, 2, 3)
    with connection.cursor() as cursor:  # of three rows the planner would read them all
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")
    cursor = alice.get(PROMPTS, {"limit": 1, "ordering": "created_at"}).json()["next"]
    asked: list[dict[str, Any]] = [{"cursor": cursor}, {"created_since": START.isoformat()}]
    for query in asked:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            assert alice.get(PROMPTS, {"limit": 1, "ordering": "created_at"} | query).status_code == 200
        (sql,) = [one["sql"] for one in seen if 'ORDER BY "annotate_prompt"."created_at"' in one["sql"]]
        with connection.cursor() as explained:
            explained.execute(f"EXPLAIN {sql}")
            plan = "\n".join(row[0] for row in explained.fetchall())
        assert "prompt_by_time" in plan and "Sort" not in plan, plan


def test_a_cursor_is_good_for_its_own_order_alone(alice: APIClient, cast: Cast, project: Project) -> None:
    arrive(alice, 1, 2, 3)
    cursor = alice.get(RANKINGS, {"limit": 1, "ordering": "submitted_at"}).json()["next"]
    for ordering in ("-submitted_at", "id"):
        fields = error_of(alice.get(RANKINGS, {"cursor": cursor, "ordering": ordering}), 400)["fields"]
        assert list(fields) == ["cursor"] and "another order" in fields["cursor"]
    assert list(error_of(alice.get(RANKINGS, {"cursor": cursor}), 400)["fields"]) == ["cursor"]


@pytest.mark.parametrize(
    "said",
    [
        ["submitted_at", "2026-01-01T00:00:00", 1],
        ["submitted_at", "9999-12-31T23:59:59-23:00", 1],
        ["submitted_at", {"a": 1}, 1],
        ["submitted_at", None, 1],
        ["submitted_at", "2026-01-01T00:00:00Z", True],
        ["submitted_at", "2026-01-01T00:00:00Z", 2**70],
        ["submitted_at", "2026-01-01T00:00:00Z"],
        [["submitted_at"], "2026-01-01T00:00:00Z", 1],
        {"submitted_at": 1},
        7,
    ],
)
def test_a_cursor_that_somebody_wrote_is_refused(alice: APIClient, project: Project, said: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    answer = alice.get(RANKINGS, {"cursor": cursor, "ordering": "submitted_at"})
    assert list(error_of(answer, 400)["fields"]) == ["cursor"]


def test_slugs_and_sizes_are_walked_too(cast: Cast, client_for: ClientFor, project: Project) -> None:
    for name in ("b", "a", "c"):
        make_project(name)
    sue, slugs, cursor = client_for(cast.sue), [], None
    while cursor != "":
        query = {"ordering": "slug", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = sue.get(f"{V1}projects/", query).json()
        slugs += [row["slug"] for row in page["results"]]
        cursor = page["next"] or ""
    assert slugs == ["a", "b", "c", "elsewhere", "tales"]
    known = [make_snapshot(project).pk for _ in range(3)]
    path = f"{V1}projects/tales/snapshots/"
    assert walk(client_for(cast.alice), path, ordering="size_bytes") == known
    assert walk(client_for(cast.alice), path, ordering="-size_bytes") == known[::-1], "equal keys in the order of ids"
