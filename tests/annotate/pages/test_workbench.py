"""What the ranking page asks for: the next tasks, reading, two responses side by side; and who may."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotate.models import (
    Lease,
    Project,
    ReadingReceipt,
    Response,
    User,
)
from annotate.pages.workbench import time_in_words
from annotate.rendered import cache_key
from annotate.services.imports import import_files
from annotate.services.projects import change_rules
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.pages.desk import Desk, answer_to, bob, close, code_of, desk, project, revision_of

pytestmark = pytest.mark.django_db
__all__ = ["bob", "desk", "project"]  # fixtures


# --- next -------------------------------------------------------------------------------------------------------------


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


# --- difference -------------------------------------------------------------------------------------------------------


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


# --- who may ----------------------------------------------------------------------------------------------------------


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
