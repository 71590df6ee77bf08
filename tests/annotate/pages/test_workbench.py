"""What the ranking page asks for: the next tasks, submit and next in one, back, drafts of revisions, reading."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotate.models import (
    Draft,
    Entry,
    Lease,
    Project,
    Ranking,
    ReadingReceipt,
    Response,
    User,
)
from annotate.pages.workbench import time_in_words
from annotate.rendered import cache_key
from annotate.services.imports import import_files
from annotate.services.projects import change_rules
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project("tales", rules={"guidelines": "Rank by **helpfulness**."})


@pytest.fixture
def bob(project: Project) -> User:
    return make_user("bob", project=project)


class Desk:
    """A person's browser on a project's ranking page."""

    def __init__(self, user: User, project: Project) -> None:
        self.client, self.project = Client(), project
        self.client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")

    def post(self, name: str, body: Any = None, **headers: str) -> Any:
        address = reverse(name, args=[self.project.slug])
        return self.client.post(address, body or {}, content_type="application/json", headers=headers)

    def next(self, **body: Any) -> Any:
        answer = self.post("rank_next", body)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def send(self, body: dict[str, Any], *, key: str = "") -> Any:
        return self.post("rank_submit", body, **{"Idempotency-Key": key or str(uuid.uuid4())})

    def submit(self, task: dict[str, Any], *, key: str = "", **body: Any) -> Any:
        answer = self.send(answer_to(task) | body, key=key)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def back(self, before: str | None = None) -> Any:
        return self.post("rank_back", {"before": before}).json()["task"]

    def draft(self, lease: str, body: dict[str, Any], *, version: int = 0) -> Any:
        return self.client.put(
            f"/api/v1/leases/{lease}/draft/", {"version": version, "body": body}, content_type="application/json"
        )


@pytest.fixture
def desk(bob: User, project: Project) -> Desk:
    return Desk(bob, project)


def answer_to(task: dict[str, Any]) -> dict[str, Any]:
    return {"lease": task["lease"], "ranking": [[one] for one in task["order"]], "unranked": [], "seconds": 12.5}


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def close(project: Project) -> None:
    Project.objects.filter(pk=project.pk).update(archived_at=timezone.now())


# --- next ------------------------------------------------------------------------------------------------------------


def test_a_lease_that_the_page_has_comes_as_its_id_alone(desk: Desk, project: Project) -> None:
    for _ in range(3):
        make_task(project)
    first = desk.next()
    leases = [task["lease"] for task in first["tasks"]]
    again = desk.next(have=[leases[1], "nonsense", 7])
    assert [task["lease"] for task in again["tasks"]] == leases
    assert again["tasks"][0] == first["tasks"][0]
    assert again["tasks"][1] == {"lease": leases[1]}


def test_guidelines_come_with_the_first_call_and_after_a_change(desk: Desk, project: Project, bob: User) -> None:
    first = desk.next()["guidelines"]
    assert first == {"version": 1, "read": False, "html": "<p>Rank by <strong>helpfulness</strong>.</p>\n"}
    assert desk.next(guidelines=1)["guidelines"] == {"version": 1, "read": False}
    assert desk.post("rank_read", {"version": 1}).json() == {"version": 1, "read": True}
    assert desk.next(guidelines=1)["guidelines"] == {"version": 1, "read": True}
    change_rules(project=project, changed_by=bob, allow_ties=False)
    assert desk.next(guidelines=1)["guidelines"] == first | {"version": 2, "read": True}
    change_rules(project=project, changed_by=bob, guidelines="Rank by honesty.")
    assert desk.next(guidelines=2)["guidelines"] == {"version": 3, "read": False, "html": "<p>Rank by honesty.</p>\n"}


def test_a_reading_receipt_is_kept_once_for_a_version_that_exists(desk: Desk, project: Project, bob: User) -> None:
    for _ in range(2):
        assert desk.post("rank_read", {"version": 1}).status_code == 200
    assert ReadingReceipt.objects.filter(user=bob, version__number=1).count() == 1
    for wrong in (2, "1", None, True):
        assert code_of(desk.post("rank_read", {"version": wrong})) == (422, "invalid")
    shell = desk.client.get(reverse("rank", args=[project.slug]))
    assert shell.context["guidelines_read"] is True
    assert Desk(make_user("ann", project=project), project).next()["guidelines"]["read"] is False


def test_without_guidelines_there_is_nothing_to_read(bob: User) -> None:
    silent = make_project("silent")
    Desk(make_user("ann", project=silent), silent)
    assert Desk(make_user("amy", project=silent), silent).next()["guidelines"]["read"] is True


def test_the_task_says_version_language_and_what_can_be_rated(desk: Desk, project: Project, bob: User) -> None:
    change_rules(
        project=project,
        changed_by=bob,
        criteria=[
            {"key": "clear", "label": "Clear", "kind": "likert", "low": 0, "high": 3, "required": True},
            {"key": "safe", "label": "Safe", "kind": "yesno", "low": 1, "high": 5, "required": False},
        ],
    )
    make_task(project, ["one", "two", "one"])
    answer = desk.post("rank_next")
    (given,) = answer.json()["tasks"]
    assert given["version"] == 2 and given["rules"]["criteria"][0]["key"] == "clear"
    context = next(one for one in answer.context if "responses" in one)
    assert context["language"] == ""
    assert [(one["key"], one["values"]) for one in context["criteria"]] == [("clear", [0, 1, 2, 3]), ("safe", [0, 1])]
    texts = {one["letter"]: one["text"] for one in context["responses"]}
    same = {one["letter"]: one["same_as"] for one in context["responses"]}
    assert same == {
        letter: [other for other in texts if other != letter and texts[other] == texts[letter]] for letter in texts
    }
    assert sorted(map(len, same.values())) == [0, 1, 1]


def test_language_is_the_prompts(desk: Desk, project: Project, tmp_path: Path) -> None:
    responses = [{"id": "a", "text": "四"}, {"id": "b", "text": "五"}]
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps({"prompt": "二加二？", "responses": responses, "language": "zh"}))
    import_files(project=project, files=[file], format="plackett")
    answer = desk.post("rank_next")
    assert next(one for one in answer.context if "responses" in one)["language"] == "zh"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [([], None), ([40], "40 s"), ([59.6], "1 min 0 s"), ([90, 110], "1 min 40 s"), ([1, 3900, 9000], "1 h 5 min")],
)
def test_the_median_time_is_told_in_words(seconds: list[float], words: str | None) -> None:
    assert (time_in_words(median(seconds)) if seconds else None) == words


def test_the_median_is_of_ones_own_first_answers(desk: Desk, project: Project) -> None:
    for _ in range(4):
        make_task(project, overlap=2)
    ann = Desk(make_user("ann", project=project), project)
    ann.submit(ann.next()["tasks"][0], seconds=9000)
    progress = {}
    for seconds in (10, None, 30):
        progress = desk.submit(desk.next()["tasks"][0], seconds=seconds)["progress"]
    assert progress["own"] == {"today": 3, "done": 3, "median_seconds": 20}
    assert progress["words"] == "3 today · 3 in all · median 20 s · 4 of 8 by everybody"
    desk.send(revision_of(desk.back()) | {"all_bad": True, "seconds": 500})
    assert desk.next()["progress"]["own"] == {"today": 3, "done": 3, "median_seconds": 20}


def test_a_closed_project_hands_nothing_out_and_says_so(desk: Desk, project: Project) -> None:
    make_task(project)
    close(project)
    answer = desk.next()
    assert (answer["tasks"], answer["closed"], Lease.objects.count()) == ([], True, 0)


# --- submit ----------------------------------------------------------------------------------------------------------


def test_submit_writes_the_answer_and_hands_out_what_is_next(desk: Desk, project: Project, bob: User) -> None:
    for _ in range(3):
        make_task(project)
    first, second = desk.next()["tasks"]
    desk.draft(first["lease"], {"ranking": []})
    answer = desk.submit(first, have=[second["lease"]], guidelines=1)
    ranking = Ranking.objects.get()
    assert answer["ranking"] == {"id": str(ranking.pk), "revision": 1, "counted": True}
    assert (ranking.annotator, ranking.source, ranking.seconds) == (bob, "page", 12.5)
    assert answer["tasks"][0] == {"lease": second["lease"]} and answer["tasks"][1]["html"]
    assert len(answer["tasks"]) == 2 and answer["guidelines"] == {"version": 1, "read": False}
    assert answer["progress"]["own"] == {"today": 1, "done": 1, "median_seconds": 12.5}
    assert answer["progress"]["words"] == "1 today · 1 in all · median 12 s · 1 of 3 by everybody"
    assert not Draft.objects.exists()


def test_the_whole_answer_arrives(desk: Desk, project: Project, bob: User) -> None:
    criterion = {"key": "clear", "label": "Clear", "kind": "likert", "low": 1, "high": 5, "required": False}
    change_rules(project=project, changed_by=bob, criteria=[criterion], flags=[{"key": "wrong", "label": "Wrong"}])
    make_task(project)
    (task,) = desk.next()["tasks"]
    a, b, c = task["order"]
    desk.submit(
        task,
        ranking=[[a, b]],
        unranked=[c],
        strengths=[],
        all_bad=True,
        ratings={a: {"clear": 4}},
        flags={b: ["wrong"]},
        rationale=" Because. ",
        rewrite={"of": a, "text": "better"},
    )
    ranking = Ranking.objects.get()
    tiers = dict(Entry.objects.filter(ranking=ranking).values_list("response_id", "tier"))
    assert tiers == {int(a): 1, int(b): 1, int(c): None}
    assert (ranking.all_bad, ranking.ratings, ranking.flags) == (True, {a: {"clear": 4}}, {b: ["wrong"]})
    assert (ranking.rationale, ranking.rewrite_of_id, ranking.rewrite_text) == ("Because.", int(a), "better")


def test_the_same_key_writes_once_and_brings_fresh_tasks(desk: Desk, project: Project) -> None:
    for _ in range(4):
        make_task(project)
    task, other = desk.next()["tasks"]
    first = desk.submit(task, key="k", have=[other["lease"]])
    again = desk.submit(task, key="k", have=[])
    assert again["ranking"] == first["ranking"] and Ranking.objects.count() == 1
    assert [one["lease"] for one in again["tasks"]] == [one["lease"] for one in first["tasks"]]
    assert "html" in again["tasks"][0]
    assert code_of(desk.send(answer_to(task) | {"seconds": 1}, key="k")) == (422, "idempotency_key_reused")


@pytest.mark.django_db(transaction=True)
def test_of_two_submits_at_once_with_one_key_one_writes(desk: Desk, project: Project, bob: User) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    pages = [Desk(bob, project) for _ in range(2)]
    first, second = at_once(2, lambda index: pages[index].submit(task, key="k"))
    assert first["ranking"] == second["ranking"] and Ranking.objects.count() == 1


def test_a_submit_needs_a_key(desk: Desk, project: Project) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    for headers in ({}, {"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 201}, {"Idempotency-Key": "ü"}):
        assert code_of(desk.post("rank_submit", answer_to(task), **headers)) == (422, "invalid")
    assert not Ranking.objects.exists()


def test_a_refused_answer_says_where_and_may_be_corrected_under_its_key(desk: Desk, project: Project) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    refused = desk.send(answer_to(task) | {"ranking": [[task["order"][0]]], "unranked": task["order"][1:]}, key="k")
    assert code_of(refused) == (422, "invalid_answer") and "ranking" in refused.json()["error"]["fields"]
    assert desk.submit(task, key="k")["ranking"]["revision"] == 1


def test_a_second_answer_names_the_first(desk: Desk, project: Project) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    first = desk.submit(task)
    again = desk.send(answer_to(task))
    assert code_of(again) == (409, "already_submitted")
    assert again.json()["error"]["extra"] == {"ranking": int(first["ranking"]["id"]), "revision": 1}


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("ranking", lambda body: body.pop("ranking")),
        ("ranking", lambda body: body.update(ranking=["1"])),
        ("ranking", lambda body: body.update(ranking=[[1]])),
        ("unranked", lambda body: body.update(unranked="12")),
        ("strengths", lambda body: body.update(strengths=[True])),
        ("all_bad", lambda body: body.update(all_bad="yes")),
        ("ratings", lambda body: body.update(ratings={"1": {"clear": 1.5}})),
        ("flags", lambda body: body.update(flags={"1": "wrong"})),
        ("rationale", lambda body: body.update(rationale=["x"])),
        ("rewrite", lambda body: body.update(rewrite={"of": "1"})),
        ("seconds", lambda body: body.update(seconds=-1)),
        ("seconds", lambda body: body.update(seconds=True)),
        ("strenghts", lambda body: body.update(strenghts=[1])),
        ("lease", lambda body: body.update(revises=1)),
        ("lease", lambda body: body.update(lease="1")),
        ("lease", lambda body: body.pop("lease")),
        ("revises", lambda body: body.update(revises="x")),
    ],
)
def test_a_body_of_another_shape_is_refused_where_it_is_wrong(
    desk: Desk, project: Project, field: str, change: Change
) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    body = answer_to(task)
    change(body)
    answer = desk.send(body)
    assert answer.status_code == 422 and field in answer.json()["error"]["fields"]
    assert not Ranking.objects.exists()


def test_nobody_submits_for_another_or_into_another_project(desk: Desk, project: Project, bob: User) -> None:
    make_task(project, overlap=2)
    elsewhere = make_project("elsewhere")
    make_task(elsewhere)
    ann = make_user("ann", project=project)
    (hers,) = Desk(ann, project).next()["tasks"]
    assert code_of(desk.send(answer_to(hers))) == (404, "not_found")
    make_membership(bob, elsewhere)
    (other,) = Desk(bob, elsewhere).next()["tasks"]
    assert code_of(desk.send(answer_to(other))) == (404, "not_found")
    mine = Desk(bob, elsewhere).submit(other)
    assert code_of(desk.send(answer_to(hers) | {"lease": other["lease"]})) == (404, "not_found")
    body = {name: value for name, value in answer_to(other).items() if name != "lease"}
    assert code_of(desk.send(body | {"revises": mine["ranking"]["id"]})) == (404, "not_found")
    assert Ranking.objects.count() == 1


def make_membership(user: User, project: Project) -> None:
    project.memberships.create(user=user)


def test_a_closed_project_takes_what_was_begun(desk: Desk, project: Project) -> None:
    for _ in range(2):
        make_task(project)
    make_task(project)
    first, second = desk.next()["tasks"]
    close(project)
    assert desk.draft(second["lease"], {"ranking": []}).status_code == 200
    again = desk.next()
    assert [task["lease"] for task in again["tasks"]] == [first["lease"], second["lease"]] and again["closed"]
    answer = desk.submit(first)
    assert ([task["lease"] for task in answer["tasks"]], answer["closed"]) == ([second["lease"]], True)
    assert answer["ranking"]["counted"]
    assert answer["progress"]["own"]["done"] == 1 and answer["guidelines"]["version"] == 1
    last = desk.submit(second)
    assert (last["tasks"], last["closed"], Lease.objects.count()) == ([], True, 2)
    assert desk.next()["tasks"] == []
    revised = desk.send(revision_of(desk.back()) | {"all_bad": True})
    assert revised.json()["ranking"]["revision"] == 2 and revised.json()["tasks"] == []


# --- back, and revisions ---------------------------------------------------------------------------------------------


def revision_of(task: dict[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in task["answer"].items() if value is not None}
    return said | {"revises": task["revises"], "unranked": unranked_of(task)}


def unranked_of(task: dict[str, Any]) -> list[str]:
    placed = {one for tier in task["answer"]["ranking"] for one in tier}
    return [one for one in task["order"] if one not in placed]


def test_back_walks_through_ones_own_answers_newest_first(desk: Desk, project: Project) -> None:
    for number in range(3):
        make_task(project, question=f"Question {number}?")
    make_task(project, overlap=2, question="Ann's?")
    Desk(make_user("ann", project=project), project)
    assert desk.back() is None
    done = [desk.submit(desk.next()["tasks"][0])["ranking"]["id"] for _ in range(3)]
    seen, before = [], None
    while task := desk.back(before):
        seen.append(task["revises"])
        before = task["revises"]
    assert seen == done[::-1]
    last = desk.back()
    ranking = Ranking.objects.get(pk=done[2])
    assert last["lease"] == str(ranking.lease_id) and last["order"] == [str(pk) for pk in ranking.presented_order]
    assert last["answer"]["ranking"] == [[one] for one in last["order"]] and last["draft"] is None
    assert f'data-id="{last["order"][0]}"' in last["html"] and last["version"] == 1


def test_a_revision_keeps_its_place_on_the_way_back(desk: Desk, project: Project) -> None:
    for _ in range(2):
        make_task(project)
    first, second = [desk.submit(desk.next()["tasks"][0])["ranking"]["id"] for _ in range(2)]
    older = desk.back(second)
    assert older["revises"] == first
    answer = desk.send(revision_of(older) | {"ranking": [older["order"]], "strengths": []}).json()
    assert answer["ranking"] == {"id": answer["ranking"]["id"], "revision": 2, "counted": True}
    assert desk.back()["revises"] == second
    again = desk.back(second)
    assert again["revises"] == answer["ranking"]["id"] and again["answer"]["ranking"] == [sorted(older["order"])]
    assert desk.back(again["revises"]) is None and desk.back(first) is None


def test_a_revision_of_what_is_not_the_last_is_told_which_is(desk: Desk, project: Project) -> None:
    make_task(project)
    desk.submit(desk.next()["tasks"][0])
    seen = desk.back()
    second = desk.send(revision_of(seen) | {"all_bad": True}).json()["ranking"]
    stale = desk.send(revision_of(seen))
    assert code_of(stale) == (409, "superseded")
    assert stale.json()["error"]["extra"] == {"ranking": int(second["id"])}


def test_back_passes_over_what_was_withdrawn_or_is_anothers(desk: Desk, project: Project) -> None:
    for _ in range(2):
        make_task(project, overlap=2)
    first, second = [desk.submit(desk.next()["tasks"][0])["ranking"]["id"] for _ in range(2)]
    withdraw_ranking(ranking=Ranking.objects.get(pk=second))
    assert desk.back()["revises"] == first and desk.back(second)["revises"] == first
    ann = Desk(make_user("ann", project=project), project)
    assert ann.back() is None and ann.back(first) is None
    assert code_of(desk.post("rank_back", {"before": "x"})) == (422, "invalid")


def test_a_draft_of_a_revision_is_kept_until_it_is_submitted(desk: Desk, project: Project) -> None:
    make_task(project)
    desk.submit(desk.next()["tasks"][0])
    task = desk.back()
    body = task["answer"] | {"all_bad": True}
    assert code_of(desk.draft(task["lease"], body)) == (409, "already_submitted")
    assert desk.draft(task["lease"], body | {"revises": task["revises"]}).json() == {"version": 1}
    assert desk.draft(task["lease"], body | {"revises": int(task["revises"])}, version=1).json() == {"version": 2}
    assert desk.back()["draft"]["version"] == 2 and desk.back()["draft"]["body"]["all_bad"] is True
    desk.send(revision_of(task) | {"all_bad": True})
    assert not Draft.objects.exists() and desk.back()["draft"] is None
    late = desk.draft(task["lease"], body | {"revises": task["revises"]}, version=2)
    assert code_of(late) == (409, "already_submitted")


# --- difference ------------------------------------------------------------------------------------------------------


def difference(desk: Desk, lease: str, one: str, other: str) -> Any:
    address = reverse("rank_difference", args=[desk.project.slug])
    return desk.client.get(address, {"lease": lease, "a": one, "b": other})


def test_two_responses_are_compared_word_by_word(desk: Desk, project: Project) -> None:
    make_task(project, ["a <b>big</b>\n  cat", "a <b>small</b>\n  cat, too"])
    (task,) = desk.next()["tasks"]
    texts = dict(Response.objects.values_list("pk", "text"))
    one, other = sorted(task["order"], key=lambda pk: len(texts[int(pk)]))
    letter = dict(zip(task["order"], "AB", strict=True))
    html = difference(desk, task["lease"], one, other).content.decode()
    assert f"1 word only in {letter[one]}, 2 only in {letter[other]}." in html
    assert 'aria-labelledby="compare-title">a &lt;b&gt;<del>big</del><ins>small</ins>&lt;/b&gt;\n  cat' in html
    assert "<ins>, too</ins></div>" in html and "<b>" not in html
    assert "The two are identical." in difference(desk, task["lease"], one, one).content.decode()
    desk.submit(task)
    assert difference(desk, task["lease"], one, other).status_code == 200


def test_a_difference_is_for_whoever_has_the_task(desk: Desk, project: Project) -> None:
    make_task(project, overlap=2)
    make_task(project)
    task, second = desk.next()["tasks"]
    one, other = task["order"][:2]
    ann = Desk(make_user("ann", project=project), project)
    outsider = Desk(make_user("charlie", project=make_project("other")), project)
    for who in (ann, outsider):
        assert code_of(difference(who, task["lease"], one, other)) == (404, "not_found")
    assert code_of(difference(desk, task["lease"], one, second["order"][0])) == (404, "not_found")
    for lease, a in (("x", one), (task["lease"], "x")):
        assert code_of(difference(desk, lease, a, other)) == (404, "not_found")


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rank_next", "rank_submit", "rank_back", "rank_read"])
def test_outsiders_and_anonymous_learn_nothing(desk: Desk, project: Project, name: str) -> None:
    make_task(project)
    address = reverse(name, args=[project.slug])
    assert Client().post(address, {}, content_type="application/json").status_code == 401
    outsider = Desk(make_user("charlie", project=make_project("other")), project)
    assert code_of(outsider.post(name, {"version": 1}, **{"Idempotency-Key": "k"})) == (404, "not_found")
    assert desk.client.get(address).status_code == 405
    assert desk.client.post(address, b"[1]", content_type="application/json").status_code == 422


def test_a_withdrawn_text_leaves_the_cache_in_every_language(
    desk: Desk, project: Project, bob: User, django_capture_on_commit_callbacks: Any
) -> None:
    texts = ["Something *private*?", "a private answer", "another private answer"]
    task = make_task(project, texts[1:], question=texts[0])
    for language in ("en", "de"):
        User.objects.filter(pk=bob.pk).update(language=language)
        assert "private" in desk.next()["tasks"][0]["html"]
    keys = [cache_key(text, language=language) for text in texts for language in ("en", "de")]
    assert set(cache.get_many(keys)) == set(keys)
    with django_capture_on_commit_callbacks(execute=True):
        withdraw_prompt(prompt=task.prompt)
    assert cache.get_many(keys) == {}


def test_who_is_deactivated_in_mid_work_hears_why(desk: Desk, project: Project, bob: User) -> None:
    make_task(project, overlap=2)
    anns = Desk(make_user("ann", project=project), project)
    (task, *_rest), (others, *_rest) = desk.next()["tasks"], anns.next()["tasks"]
    project.memberships.filter(user=bob).update(deactivated_at=timezone.now())
    lease = f"/api/v1/leases/{task['lease']}/"
    for answer in (
        desk.post("rank_next"),
        desk.send(answer_to(task)),
        desk.draft(task["lease"], {"ranking": []}),
        desk.client.post(f"{lease}extend/"),
        desk.client.post(f"/api/v1/projects/{project.slug}/next/"),
    ):
        assert code_of(answer) == (404, "not_a_member")
        assert "ask its manager" in answer.json()["error"]["message"]
    assert code_of(desk.draft(others["lease"], {})) == (404, "not_found")
    stranger = Desk(make_user("charlie"), project)
    assert code_of(stranger.draft(task["lease"], {})) == (404, "not_found")
    assert code_of(stranger.post("rank_next")) == (404, "not_found")
