"""Withdrawals over REST: counted first, done once, on record without the text. Who may is in test_roles.py."""

import json
from typing import Any

import pytest

from annotate.models import Project, Prompt, Ranking, RankingTask
from annotate.selectors.record_builder import pseudonym_of
from annotate.services import withdrawn_people
from annotate.services.queue import next_leases
from annotate.services.withdrawn_people import go_on_withdrawing
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.factories import make_project, make_task
from tests.annotate.helpers import submit

PHRASE = "zanzibar-7"


@pytest.fixture
def ranked(project: Project, cast: Cast, task: RankingTask) -> Ranking:
    return submit(next_leases(project=project, annotator=cast.bob)[0], cast.bob, rationale=PHRASE)


def test_a_person_by_name_or_pseudonym(project: Project, cast: Cast, ranked: Ranking, client_for: ClientFor) -> None:
    client, path = client_for(cast.alice), "/api/v1/projects/tales/withdrawals/"
    for name in ("bob", pseudonym_of(project, cast.bob.pk)):
        looked = client.post(path, {"annotator": name, "dry_run": True})
        assert looked.status_code == 200 and looked.json()["counts"]["rankings"] == 1
        assert looked.json()["withdrawal"] is None and client.get(path).json()["results"] == []
    keyed = {"annotator": pseudonym_of(project, cast.bob.pk, key="k"), "key": "k", "reason": "Letter of May"}
    answers = [client.post(path, keyed, headers={"Idempotency-Key": "w"}) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 201] and answers[0].json() == answers[1].json()
    row = answers[0].json()["withdrawal"]
    assert (row["kind"], row["annotator"], row["by"], row["reason"]) == ("annotator", "bob", "alice", "Letter of May")
    assert row["counts"] == {"answers": 1, "rankings": 1, "rationales": 1} and row["finished_at"]
    again = client.post(path, {"annotator": "bob"})
    assert (again.status_code, again.json()["withdrawal"]["id"]) == (200, row["id"])
    listed = client.get(path)
    assert listed.json()["results"] == [row] and PHRASE not in listed.content.decode()
    assert client.post(path, {"annotator": "rita"}).json()["error"]["code"] == "nothing"


def test_what_is_too_long_for_a_request_goes_on(
    cast: Cast, ranked: Ranking, client_for: ClientFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[int] = []
    monkeypatch.setattr("annotate.api.withdrawals.SECONDS", 0.0)
    monkeypatch.setattr(withdrawn_people, "ring", lambda: rung.append(1))
    begun = client_for(cast.alice).post("/api/v1/projects/tales/withdrawals/", {"annotator": "bob"})
    assert begun.status_code == 202 and begun.json()["withdrawal"]["finished_at"] is None and rung
    assert go_on_withdrawing() == 1
    (row,) = client_for(cast.alice).get("/api/v1/projects/tales/withdrawals/").json()["results"]
    assert row["finished_at"] and row["counts"]["rankings"] == 1


@pytest.mark.parametrize("kind", ["ranking", "prompt", "prompt by body", "response"])
def test_one_thing_and_once(kind: str, cast: Cast, ranked: Ranking, client_for: ClientFor) -> None:
    prompt = Prompt.objects.get(tasks=ranked.task_id)
    response = prompt.responses.order_by("pk").first()
    assert response is not None
    asked: dict[str, Any] = {
        "ranking": (f"rankings/{ranked.pk}/withdraw/", {}),
        "prompt": (f"prompts/{prompt.pk}/withdraw/", {}),
        "prompt by body": ("projects/tales/withdrawals/", {"prompt": prompt.pk, "reason": "R 17"}),
        "response": ("projects/tales/withdrawals/", {"response": response.pk, "reason": "R 17"}),
    }
    path, body = asked[kind]
    client = client_for(cast.alice)
    first, again = (client.post(f"/api/v1/{path}", body) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["withdrawal"] == again.json()["withdrawal"]
    assert first.json()["withdrawal"]["kind"] == kind.split()[0] and first.json()["counts"]["rankings"] == 1
    assert first.json()["withdrawal"]["reason"] == body.get("reason", "")
    ranked.refresh_from_db()
    assert ranked.withdrawn_at is not None and ranked.rationale is None
    # Asked again by what it went with, the same row is named.
    assert client.post(f"/api/v1/rankings/{ranked.pk}/withdraw/").json()["withdrawal"] == again.json()["withdrawal"]


def test_a_text_is_searched_for_and_never_shown(cast: Cast, ranked: Ranking, client_for: ClientFor) -> None:
    client, path = client_for(cast.alice), "/api/v1/projects/tales/withdrawals/"
    found: list[Any] = []
    body: dict[str, Any] = {"text": PHRASE, "dry_run": True}
    while True:
        answer = client.post(path, body)
        assert answer.status_code == 200 and PHRASE not in answer.content.decode()
        found += answer.json()["found"]
        if answer.json()["next"] is None:
            break
        body["cursor"] = answer.json()["next"]
    task = {"prompt": None, "task": ranked.task_id, "annotator": "bob"}
    assert found == [{"kind": "ranking", "id": str(ranked.pk), **task}]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "annotator"),
        ({"annotator": "bob", "prompt": 1}, 400, "annotator"),
        ({"text": "abc"}, 400, "dry_run"),
        ({"text": "ab", "dry_run": True}, 422, "text"),
        ({"text": "abc", "dry_run": True, "cursor": "99:0"}, 422, "cursor"),
        ({"prompt": 1, "cursor": "0:0"}, 400, "cursor"),
        ({"annotator": "nobody"}, 422, "annotator"),
        ({"prompt": 2**62}, 422, "prompt"),
        ({"colour": "red"}, 400, "colour"),
        ({"annotator": "bob", "reason": "x" * 201}, 400, "reason"),
    ],
)
def test_what_makes_no_sense_is_named(
    body: dict[str, Any], status: int, field: str, cast: Cast, client_for: ClientFor
) -> None:
    answer = client_for(cast.alice).post("/api/v1/projects/tales/withdrawals/", body)
    assert answer.status_code == status and field in answer.json()["error"]["fields"], answer.content


def test_nothing_of_another_project_is_reached(cast: Cast, ranked: Ranking, client_for: ClientFor) -> None:
    foreign = make_task(make_project("third"))
    client = client_for(cast.alice)
    assert client.post("/api/v1/projects/tales/withdrawals/", {"prompt": foreign.prompt_id}).status_code == 422
    assert client.post(f"/api/v1/prompts/{foreign.prompt_id}/withdraw/").status_code == 404
    assert client_for(cast.charlie).post(f"/api/v1/rankings/{ranked.pk}/withdraw/").status_code == 404
    assert json.dumps(Prompt.objects.get(pk=foreign.prompt_id).messages) != "[]"
