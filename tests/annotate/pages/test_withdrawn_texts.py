"""The page on which a text is searched for, looked at, chosen and withdrawn. Who may is in api/test_roles.py."""

import re
from typing import Any

import pytest
from django.test import Client

from annotate.models import Prompt, Ranking, RankingTask, Response, Role, Snapshot, User, Withdrawal
from annotate.pages import withdrawn_texts
from annotate.selectors import dependents
from annotate.selectors.excerpts import CHARACTERS, PLACES, Excerpt, excerpts_of
from annotate.selectors.phrases import found_again
from annotate.selectors.withdrawals import reach_of_found
from annotate.services.queue import next_leases
from annotate.services.snapshots import freeze_snapshot
from annotate.services.withdrawals import withdraw_found
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit
from tests.annotate.pages.test_pages import browser
from tests.annotate.test_withdrawals import PHRASE, World, every, places_of

pytestmark = pytest.mark.django_db
PAGE = "/p/tales/withdraw/"


@pytest.fixture
def world() -> World:
    """Bob's rankings and notes hold the phrase; so do a prompt and one response of another task."""
    world = World()
    make_user("mia", project=world.project, role=Role.MANAGER)
    make_task(world.project, (f"ask {PHRASE} <b>now</b>", "b"), question=f"Who is {PHRASE}, and {PHRASE} where?")
    return world


@pytest.fixture
def mia(world: World) -> Client:
    return browser(User.objects.get(username="mia"))


def post(client: Client, **body: Any) -> str:
    answer = client.post(PAGE, {"text": PHRASE, **body})
    assert answer.status_code == 200, answer.status_code
    return " ".join(answer.content.decode().split())


def values(page: str, name: str = "found") -> list[str]:
    return re.findall(rf'name="{name}" value="([^"]*)"', page)


# --- searching --------------------------------------------------------------------------------------------------------


def test_every_place_is_found_with_the_text_marked(world: World, mia: Client) -> None:
    page = post(mia, step="search")
    expected = [f"{one.kind}:{one.id}" for one in every(world.project, PHRASE)]
    assert len(expected) == 10 and values(page) == values(page, "shown") == expected
    assert f"10 things hold “{PHRASE}”" in page
    assert f"Who is <mark>{PHRASE}</mark>, and {PHRASE} where?" in page
    assert f"Who is {PHRASE}, and <mark>{PHRASE}</mark> where?" in page
    assert f"ask <mark>{PHRASE}</mark> &lt;b&gt;now&lt;/b&gt;" in page
    assert f"A better <mark>{PHRASE}</mark>" in page and "(in the edited version)" in page
    task = RankingTask.objects.get(prompt__responses__text__contains=PHRASE)
    assert page.count(f'href="/p/tales/tasks/{task.pk}/"') == 2 and "by bob" in page
    assert not re.search(r'name="found"[^>]*checked', page)
    assert not Withdrawal.objects.exists() and len(places_of(PHRASE)) == 10


def test_what_is_nowhere_is_said_to_be_nowhere(mia: Client) -> None:
    page = " ".join(mia.post(PAGE, {"text": "ZANZIBAR-7", "step": "search"}).content.decode().split())
    assert "“ZANZIBAR-7” stands nowhere in this project" in page and values(page) == []


def test_a_long_search_goes_on_from_page_to_page(world: World, mia: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = values(post(mia, step="search"))
    monkeypatch.setattr(withdrawn_texts, "PAGE", 2)
    found, cursor = [], ""
    for _page in range(20):
        page = post(mia, cursor=cursor)
        found += values(page)
        assert len(values(page)) <= 2
        further = [one for one in values(page, "cursor") if one != cursor]
        if not further:
            break
        assert "Look further" in page
        cursor = further[0]
    assert found == whole


@pytest.mark.parametrize("body", [{"text": "ab"}, {"text": ""}, {"text": "x" * 1001}, {"text": "abc", "cursor": "9:0"}])
def test_what_cannot_be_searched_for_is_refused_in_words(mia: Client, body: dict[str, str]) -> None:
    answer = mia.post(PAGE, body)
    assert answer.status_code == 422 and b'class="error"' in answer.content


def test_the_text_stands_in_no_address_and_no_browser_keeps_the_page(mia: Client) -> None:
    answer = mia.post(PAGE, {"text": PHRASE, "step": "search"})
    page = answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert not [one for one in re.findall(r'(?:href|action)="([^"]*)"', page) if PHRASE in one]
    assert set(re.findall(r'<form[^>]*method="(\w+)"', page)) == {"post"}


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_looking_says_what_the_chosen_would_take_and_changes_nothing(
    world: World, mia: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_task(world.project)
    snapshot, other = freeze_snapshot(project=world.project, name="all"), make_project("other")
    bobs = next(one for one in values(post(mia, step="search")) if one.startswith("ranking:"))
    monkeypatch.setattr(dependents, "_finders", [lambda ids: ["rm-1"] if list(ids) == [snapshot.pk] else []])
    page = post(mia, step="look", found=[bobs])
    assert "2 rankings (revisions counted)" in page and "1 snapshot holds some of it" in page and "all" in page
    assert "1 model was trained from it" in page and "rm-1" in page and "in all its revisions" in page
    assert values(page) == [bobs] and "10 things hold" not in page
    note = next(one for one in values(post(mia, step="search")) if one.startswith("skip_note:"))
    page = post(mia, step="look", found=[note])
    assert "1 note on a skip" in page and "No snapshot holds any of it." in page and "rm-1" not in page
    assert not Withdrawal.objects.exists() and Snapshot.objects.get().state == "frozen"
    assert other.withdrawals.count() == 0


def test_all_that_is_shown_can_be_chosen_at_once_and_nothing_is_too_little(mia: Client) -> None:
    page = post(mia, step="search")
    looked = post(mia, step="look", all="1", shown=values(page, "shown"))
    assert values(looked) == values(page) and "1 prompt" in looked and "A prompt goes with" in looked
    assert "Choose what is to go." in post(mia, step="look")


def hidden(page: str) -> dict[str, list[str]]:
    """What the form with the text's places sends along whatever is pressed."""
    form = next(one for one in re.findall(r"<form.*?</form>", page) if 'class="found card"' in one)
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form):
        found.setdefault(name, []).append(value)
    return found


def test_a_single_find_goes_from_form_to_form(world: World, mia: Client) -> None:
    body = {"text": "Who is zanz", "step": "search"}
    page = " ".join(mia.post(PAGE, body).content.decode().split())
    assert "1 thing holds" in page and 'name="all"' not in page
    chosen = hidden(page) | {"found": values(page)}
    assert chosen["step"] == ["look"]
    asked = " ".join(mia.post(PAGE, chosen).content.decode().split())
    assert "Withdraw this?" in asked
    done = mia.post(PAGE, hidden(asked) | {"step": "withdraw", "reason": "R"}).content.decode()
    assert "1 thing is withdrawn." in done and "stands nowhere" in done


def test_only_what_holds_the_text_in_this_project_can_be_chosen(world: World, mia: Client) -> None:
    foreign = make_task(make_project("foreign"), (f"{PHRASE} abroad", "b"))
    innocent, theirs = Response.objects.get(text="b", prompt__project=world.project), foreign.task_responses.all()[0]
    ids = [f"response:{innocent.pk}", f"response:{theirs.response_id}", f"ranking:{world.anns.pk}"]
    odd = ["", "ranking", "ranking:x", "ranking:-1", f"ranking:{10**30}", "snapshot:1", "ranking:²"]
    for step in ("look", "withdraw"):
        answer = mia.post(PAGE, {"text": PHRASE, "step": step, "found": [*ids, *odd]})
        page = answer.content.decode()
        assert answer.status_code == 200 and "abroad" not in page
        assert ("Choose what is to go." if step == "look" else "What you chose is gone already.") in page
    assert not Withdrawal.objects.exists() and not Response.objects.exclude(withdrawn_at=None).exists()


# --- withdrawing ------------------------------------------------------------------------------------------------------


def test_the_chosen_goes_and_the_rest_stays_and_is_shown(world: World, mia: Client) -> None:
    snapshot = freeze_snapshot(project=world.project, name="all")
    chosen = [one for one in values(post(mia, step="search")) if one.startswith(("response:", "flag_note:"))]
    page = post(mia, step="withdraw", found=chosen, reason="  Request\n 17 ")
    assert "2 things are withdrawn." in page and len(values(page)) == 8 and not set(chosen) & set(values(page))
    rows = list(Withdrawal.objects.order_by("kind").values_list("kind", "by__username", "reason"))
    assert rows == [("note", "mia", "Request 17"), ("response", "mia", "Request 17")]
    assert page.count("Request 17") == 2  # in the list of what was withdrawn
    assert Response.objects.filter(withdrawn_at=None).count() == Response.objects.count() - 1
    assert Snapshot.objects.get(pk=snapshot.pk).state == "frozen"


def test_all_of_it_goes_from_every_table(world: World, mia: Client) -> None:
    snapshot = freeze_snapshot(project=world.project, name="all")
    page = post(mia, step="withdraw", found=values(post(mia, step="search")))
    assert f"“{PHRASE}” stands nowhere in this project" in page and places_of(PHRASE) == []
    assert Snapshot.objects.get(pk=snapshot.pk).state == "withdrawn"
    assert Ranking.objects.filter(withdrawn_at=None).get() == world.anns
    again = post(mia, step="withdraw", found=["ranking:1"])  # the page sent once more
    assert "What you chose is gone already." in again


@pytest.mark.parametrize("reason", [f"about {PHRASE.upper()}", "x" * 201])
def test_a_reason_that_cannot_be_kept_is_asked_for_again(world: World, mia: Client, reason: str) -> None:
    chosen = values(post(mia, step="search"))[:1]
    answer = mia.post(PAGE, {"text": PHRASE, "step": "withdraw", "found": chosen, "reason": reason})
    assert answer.status_code == 422 and values(answer.content.decode()) == chosen
    assert not Withdrawal.objects.exists()


def test_what_takes_too_long_is_gone_on_with(world: World, mia: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = values(post(mia, step="search"))
    monkeypatch.setattr(withdrawn_texts, "SECONDS", -1.0)
    page = post(mia, step="withdraw", found=chosen, reason="R 17")
    assert "0 things are withdrawn. 10 are left: go on with them here." in page and values(page) == chosen
    assert "> R 17</textarea>" in page and "What it reaches" in page
    monkeypatch.undo()
    assert "stands nowhere" in post(mia, step="withdraw", found=values(page)) and places_of(PHRASE) == []


def test_what_is_being_handed_in_is_left_and_said(world: World, mia: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotate.services.locks.ATTEMPTS", 0)  # as when somebody is in the way for seconds
    chosen = [one for one in values(post(mia, step="search")) if one.startswith(("prompt:", "draft:"))]
    page = post(mia, step="withdraw", found=chosen)
    assert "1 thing is withdrawn. 1 is left: go on with it here." in page
    assert values(page) == [one for one in chosen if one.startswith("prompt:")]


def test_what_is_undone_meanwhile_is_no_fault(world: World) -> None:
    (prompt,) = [one for one in every(world.project, PHRASE) if one.kind == "prompt"]
    task = RankingTask.objects.get(prompt=prompt.id)
    task.task_responses.all().delete()
    task.slots.all().delete()
    task.delete()
    Prompt.objects.filter(pk=prompt.id).delete()
    assert withdraw_found(project=world.project, found=prompt) is None


# --- what it would reach, and where it stands -------------------------------------------------------------------------


def test_what_is_reached_twice_counts_once() -> None:
    project = make_project(overlap=1)
    bob = make_user(project=project)
    task = make_task(project, (f"{PHRASE} a", f"{PHRASE} b"), question=f"{PHRASE}?")
    make_task(project)
    for slot in next_leases(project=project, annotator=bob, count=2):
        submit(slot, bob, rationale=PHRASE if slot.task_id == task.pk else "fine")
    found = every(project, PHRASE)
    assert [one.kind for one in found] == ["prompt", "response", "response", "ranking"]
    assert reach_of_found(project, found).counts == {"prompts": 1, "responses": 2, "rankings": 1}
    assert reach_of_found(project, found[1:2]).counts == {"prompts": 0, "responses": 1, "rankings": 1}
    assert reach_of_found(project, []).counts == {"prompts": 0, "responses": 0, "rankings": 0}


def test_places_are_cut_around_the_text_and_not_too_many() -> None:
    project = make_project()
    text = f"{'a' * 200}{PHRASE}{'b' * 200}" + f" {PHRASE}" * 9
    make_task(project, (text, f"{PHRASE}"))
    long, short = every(project, PHRASE)
    places = excerpts_of(project, PHRASE, [long, short])
    assert len(places["response", long.id]) == PLACES
    first = places["response", long.id][0]
    assert first == Excerpt("text", f"…{'a' * CHARACTERS}", PHRASE, f"{'b' * CHARACTERS}…")
    assert places["response", short.id] == [Excerpt("text", "", PHRASE, "")]


def test_a_place_in_json_is_shown_and_one_in_no_string_is_not() -> None:
    project = make_project()
    task = make_task(project)
    other = Prompt(
        project=project,
        content_sha256="0" * 64,
        messages=[],
        split_group=task.prompt.split_group,
        extra={"from": {"people": [f'"{PHRASE}"']}, "numbers": [12345, 678]},
    )
    other.save()
    (held,) = every(project, PHRASE)
    (place,) = excerpts_of(project, PHRASE, [held])["prompt", held.id]
    assert (place.column, place.before, place.after) == ("extra", '"', '"')
    (number,) = every(project, "12345")
    assert excerpts_of(project, "12345", [number]) == {("prompt", number.id): []}
    assert found_again(project, "12345", [("prompt", number.id), ("prompt", task.prompt_id)]) == [number]
