"""The set-up pages over HTTP: what they show, what they write, and that nothing is written before the save."""

import html
import json
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import translation

from annotate.models import Project, ProjectVersion, RankingTask, Role, Slot, User
from annotate.pages.presets import PRESETS
from annotate.pages.setup_forms import minutes
from annotate.selectors.projects import current_version
from annotate.services.guidelines import record_reading
from annotate.services.project_rules import rule_faults
from annotate.services.projects import change_project
from annotate.services.queue import next_leases
from tests.annotate.factories import make_task, make_user
from tests.annotate.helpers import submit
from tests.annotate.pages.setup_form import HELPFUL, alice, client, kept, loaded, post, project, text_of, whole_form

pytestmark = pytest.mark.django_db
__all__ = ["alice", "client", "project"]  # fixtures


# --- the form and its save --------------------------------------------------------------------------------------------


def test_saving_the_form_as_it_was_loaded_changes_nothing(client: Client, project: Project) -> None:
    for seconds in range(30, 120):
        assert round(minutes(seconds) * 60) == seconds
    Project.objects.update(lease_seconds=50, description="Two\nlines")
    for do in ("review", "save"):
        answer = client.post("/p/tales/setup/", whole_form(client) | {"do": do}, follow=True)
        assert "Nothing is changed" in answer.content.decode()
    assert ProjectVersion.objects.count() == 1
    assert Project.objects.values_list("lease_seconds", "description").get() == (50, "Two\nlines")


def test_a_change_is_reviewed_and_then_saved_as_a_version(client: Client, project: Project, alice: User) -> None:
    ann, bob = make_user("ann", project=project), make_user("bob", project=project)
    for _ in range(4):
        make_task(project, overlap=2)
    next_leases(project=project, annotator=ann, count=2)
    next_leases(project=project, annotator=bob, count=1)
    record_reading(project=project, user=ann, number=1)
    form = whole_form(
        client, allow_ties=None, strength="required", guidelines="Be **kind**.", flag__2__label="Too long"
    )
    review = post(client, form)
    words = text_of(review)
    assert (
        "You change 4 things" in words and "Ties allowed off" in words and "How much better optional required" in words
    )
    assert "New flag – Too long" in words
    assert "The rules become version 2." in words
    assert "2 people hold 3 tasks under version 1; they finish them under that." in words
    assert "everyone is shown them again. So far one person has read the ones in force." in words
    assert ProjectVersion.objects.count() == 1
    done = client.post("/p/tales/setup/", kept(review) | {"do": "save"}, follow=True)
    assert "Saved as version 2. 3 tasks that people hold are finished under the version before." in text_of_all(done)
    version = current_version(project)
    assert (version.number, version.created_by, version.allow_ties, version.strength) == (2, alice, False, "required")
    assert version.guidelines == "Be **kind**." and version.flags[2] == {"key": "too_long", "label": "Too long"}
    assert version.criteria == [HELPFUL] and version.allow_partial
    assert {slot.version_id for slot in Slot.objects.filter(state="leased")} == {project.versions.get(number=1).pk}


def text_of_all(answer: Any) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode())))


def test_a_change_of_the_guidelines_is_shown_word_by_word(client: Client, project: Project, alice: User) -> None:
    long = "Much that stays. " * 100
    change_project(project=project, changed_by=alice, rules={"guidelines": f"{long}Be fair. {long}"})
    review = post(client, whole_form(client, guidelines=f"{long}Be <b>kind</b>. {long}")).content.decode()
    assert "<del>fair</del><ins>&lt;b&gt;kind&lt;/b&gt;</ins>" in review
    assert "Words taken out: 1. Words put in: 3." in review
    shown = review[review.index('class="difference"') : review.index("</details>", review.index('class="difference"'))]
    assert len(shown) < 1000
    change_project(project=project, changed_by=alice, rules={"guidelines": "Be kind."})
    assert "<ins>kind</ins>" in client.get("/p/tales/setup/versions/3/").content.decode()


def test_settings_alone_make_no_version(client: Client, project: Project) -> None:
    form = whole_form(client, name="Fairy tales", lease_minutes="1.5", skip_limit="5")
    assert "The rules stay version 1" in text_of(post(client, form))
    post(client, form, "save")
    project.refresh_from_db()
    assert (project.name, project.lease_seconds, project.skip_limit) == ("Fairy tales", 90, 5)
    assert ProjectVersion.objects.count() == 1


def test_unchanged_guidelines_need_no_second_reading(client: Client) -> None:
    assert "nobody has to read them again" in text_of(post(client, whole_form(client, allow_partial=None)))


def test_back_from_the_review_nothing_is_lost(client: Client) -> None:
    form = whole_form(client, guidelines="New\r\n\r\ntext\r\n", flag__0__label="Quite wrong", allow_ties=None)
    back = post(client, kept(post(client, form)), "edit")
    assert loaded(back) == form
    assert "data-unsaved" in back.content.decode()


def test_a_label_can_be_given_a_new_name_while_its_key_stays(client: Client, project: Project) -> None:
    form = whole_form(client, criterion__0__label="How helpful is it?")
    assert "Rating Helpful (1 to 5) How helpful is it? (1 to 5)" in text_of(post(client, form))
    post(client, form, "save")
    assert current_version(project).criteria[0] == HELPFUL | {"label": "How helpful is it?"}


@pytest.mark.parametrize(
    ("changed", "control", "message"),
    [
        (
            {"criterion__0__label": ""},
            "id_criterion-0-label",
            "Rating 1, What annotators read: Say what annotators read here.",
        ),
        ({"criterion__0__low": "5"}, "id_criterion-0-high", "The highest value must be above the lowest."),
        ({"criterion__0__low": "five"}, "id_criterion-0-low", "Enter a whole number."),
        ({"criterion__0__high": ""}, "id_criterion-0-high", "A whole number from 0 to 100."),
        ({"criterion__0__key": "so so"}, "id_criterion-0-key", "Letters a to z"),
        ({"flag__1__key": "wrong"}, "id_flag-1-key", "Flag 2, Name in the data: Another one has this key."),
        ({"flag__1__label": "wrong"}, "id_flag-1-label", "Two have this label"),
        ({"guidelines": "a\0b"}, "id_guidelines", "Null characters are not allowed."),
        ({"guidelines": "x" * 200_001}, "id_guidelines", "at most 200000 characters"),
        ({"name": ""}, "id_name", "This field is required."),
        ({"overlap": "51"}, "id_overlap", "A whole number from 1 to 50."),
        ({"lease_minutes": "0.1"}, "id_lease_minutes", "greater than or equal to 0.5"),
        ({"strength": "some"}, "id_strength", "Select a valid choice."),
        ({f"flag__{n}__label": f"flag {n}" for n in range(21)}, "flags-title", "At most 20 flags."),
    ],
)
def test_what_cannot_be_is_said_at_its_place_and_above(
    client: Client, changed: dict[str, str], control: str, message: str
) -> None:
    form = whole_form(client, **changed)
    answer = post(client, form, "save")
    assert answer.status_code == 422
    page = answer.content.decode()
    assert f'href="#{control}' in page and message in html.unescape(page)
    assert re.search(rf'id="{control}(_0)?"', page), "the link above leads to it"
    assert ProjectVersion.objects.count() == 1
    if "\0" not in form["guidelines"] and form["strength"] != "some":
        assert loaded(answer).items() >= form.items()


def test_texts_of_managers_are_shown_as_text(client: Client) -> None:
    attack = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    form = whole_form(client, name=attack, criterion__0__label=attack, flag__0__label=attack, guidelines=attack)
    answers = [post(client, form), post(client, form | {"criterion-0-low": "9"}), post(client, form, "preview")]
    client.post("/p/tales/setup/", form | {"do": "save"})
    answers += [client.get(f"/p/tales/setup/{path}") for path in ("", "versions/", "versions/2/")]
    for answer in answers:
        assert "<script>alert" not in answer.content.decode() and "<img" not in answer.content.decode()


# --- rows without JavaScript ------------------------------------------------------------------------------------------


def labels(answer: Any, kind: str) -> list[str]:
    form = loaded(answer)
    return [form[name] for name in sorted(form) if re.fullmatch(rf"{kind}-\d+-label", name)]


def test_rows_are_added_moved_and_removed_by_plain_posts(client: Client) -> None:
    form = whole_form(client, name="Changed", allow_ties=None)
    added = post(client, form, "flag-add")
    assert labels(added, "flag") == ["Wrong", "Rude", ""]
    assert re.search(r'id="id_flag-2-label"[^>]*autofocus|autofocus[^>]*id="id_flag-2-label"', added.content.decode())
    named = loaded(added) | {"flag-2-label": "Long"}
    up = post(client, named, "flag-2-up")
    assert labels(up, "flag") == ["Wrong", "Long", "Rude"]
    assert re.search(r'id="flag-1-up"[^>]* autofocus', up.content.decode())
    top = post(client, loaded(up), "flag-1-up")
    assert labels(top, "flag") == ["Long", "Wrong", "Rude"]
    assert re.search(r'id="flag-0-down"[^>]* autofocus', top.content.decode())  # there, up is switched off
    gone = post(client, loaded(post(client, loaded(top), "flag-0-remove")), "criterion-0-remove")
    assert labels(gone, "flag") == ["Wrong", "Rude"] and labels(gone, "criterion") == []
    assert re.search(r'id="criterion-add"[^>]* autofocus', gone.content.decode())
    assert loaded(gone)["name"] == "Changed" and "allow_ties" not in loaded(gone)
    assert ProjectVersion.objects.count() == 1


def test_half_filled_rows_are_kept_as_they_are_while_rows_move(client: Client) -> None:
    form = whole_form(client, criterion__0__low="many", criterion__0__required="on")
    moved = loaded(post(client, form, "criterion-add"))
    assert (moved["criterion-0-low"], moved["criterion-0-required"]) == ("many", "on")


def test_no_more_rows_than_the_limit(client: Client) -> None:
    form = whole_form(client, **{f"criterion__{n}__label": f"c{n}" for n in range(12)})
    assert len(labels(post(client, form, "criterion-add"), "criterion")) == 12


@pytest.mark.parametrize("do", ["flag-9-up", "nonsense", "flag--up", ""])
def test_unknown_buttons_do_nothing(client: Client, do: str) -> None:
    assert post(client, whole_form(client), do).status_code in {302, 400, 422}
    assert ProjectVersion.objects.count() == 1


@pytest.mark.parametrize("seen", ["", "{}", "[]", "null", '{"version": "1", "settings": {}}', "{" * 5000])
def test_a_broken_form_is_refused(client: Client, seen: str) -> None:
    answer = post(client, whole_form(client, seen=seen), "save")
    assert answer.status_code == 422 and "not whole" in answer.content.decode()


# --- ready-made sets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_ready_made_set_is_good_as_it_is(client: Client, preset: Any, language: str) -> None:
    with translation.override(language):
        rules = preset.filled()
    assert rule_faults(rules) == {} and rules["guidelines"].strip()
    json.dumps(rules)


def test_a_ready_made_set_is_filled_in_and_not_saved(client: Client, project: Project) -> None:
    empty = whole_form(client, guidelines="", name="Other") | {"preset": "instructgpt"}
    filled = post(client, empty, "preset")
    form = loaded(filled)
    assert form["criterion-0-label"] == "Overall quality" and form["criterion-0-high"] == "7"
    assert form["criterion-0-required"] == "on" and len(labels(filled, "flag")) == 11
    assert form["guidelines"].startswith("Rate each response") and form["name"] == "Other"
    assert "Nothing is saved yet" in text_of(filled) and ProjectVersion.objects.count() == 1
    post(client, form, "save")
    assert current_version(project).number == 2 and not current_version(project).allow_partial


def test_guidelines_that_somebody_wrote_stay(client: Client) -> None:
    filled = post(client, whole_form(client) | {"preset": "plain"}, "preset")
    assert loaded(filled)["guidelines"].startswith("Be **fair**.") and labels(filled, "criterion") == []
    assert post(client, whole_form(client), "preset").status_code == 422


# --- somebody else was quicker ----------------------------------------------------------------------------------------


def test_two_managers_at_once_lose_nothing(client: Client, project: Project) -> None:
    bob = make_user("bob", project=project, role=Role.MANAGER)
    form = whole_form(client, allow_ties=None, strength="required", name="Mine")
    change_project(project=project, changed_by=bob, rules={"strength": "off", "guidelines": "Theirs."}, skip_limit=9)
    stale = post(client, form, "save")
    assert stale.status_code == 409 and ProjectVersion.objects.count() == 2
    words = text_of(stale)
    both = words[words.index("Both of you") : words.index("What they changed")]
    assert "How much better not asked required" in both and "Ties" not in both and "Guidelines" not in both
    assert "Skips until a task is held 3 9" in words and "Ties allowed off" in words
    merged = post(client, kept(stale), "merge")
    put_together = loaded(merged)
    assert put_together["guidelines"] == "Theirs." and put_together["skip_limit"] == "9"
    assert put_together["strength"] == "required" and put_together["name"] == "Mine"
    assert "allow_ties" not in put_together
    post(client, put_together, "save")
    version, project = current_version(project), Project.objects.get(pk=project.pk)
    assert (version.number, version.allow_ties, version.strength) == (3, False, "required")
    assert (version.guidelines, project.name, project.skip_limit) == ("Theirs.", "Mine", 9)


def test_mine_alone_can_be_chosen_and_is_reviewed_again(client: Client, project: Project) -> None:
    bob = make_user("bob", project=project, role=Role.MANAGER)
    form = whole_form(client, allow_ties=None)
    change_project(project=project, changed_by=bob, rules={"guidelines": "Theirs."})
    stale = post(client, form)
    assert stale.status_code == 409
    mine = loaded(post(client, kept(stale), "mine"))
    assert mine["guidelines"] == form["guidelines"]
    assert "Guidelines 1 word 4 words" in text_of(post(client, mine))


# --- overlap and archive ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_overlap_for_new_tasks_or_for_all(client: Client, project: Project) -> None:
    for _ in range(3):
        make_task(project)
    form = whole_form(client, overlap="3")
    assert "New tasks are ranked by 3 annotators each. Tasks that exist keep theirs." in text_of(post(client, form))
    for_all = form | {"overlap_for": "all"}
    assert "3 tasks get more places: 6 more rankings are wanted in all." in text_of(post(client, for_all))
    post(client, form, "save")
    assert set(RankingTask.objects.values_list("overlap", flat=True)) == {1}
    again = whole_form(client, overlap_for="all")
    answer = client.post("/p/tales/setup/", again | {"do": "save"}, follow=True)
    assert "3 tasks got 6 more places." in text_of_all(answer)
    assert set(RankingTask.objects.values_list("overlap", flat=True)) == {3} and Slot.objects.count() == 9


def test_a_project_is_archived_and_opened_again(client: Client, project: Project, alice: User) -> None:
    make_task(project)
    (held,) = next_leases(project=project, annotator=alice)
    answer = client.post("/p/tales/setup/archive/", {"archived": "yes"}, follow=True)
    project.refresh_from_db()
    assert project.archived_at and "archived since" in text_of(answer)
    assert "Archived: Tales" in text_of(client.get("/")), "there is a way back to it"
    begun = client.post("/p/tales/rank/next/", {}, content_type="application/json").json()
    assert [task["lease"] for task in begun["tasks"]] == [str(held.lease_id)] and begun["closed"]
    submit(held, alice)
    after = client.post("/p/tales/rank/next/", {}, content_type="application/json").json()
    assert after["tasks"] == [] and after["closed"]
    client.post("/p/tales/setup/archive/", {"archived": "no"})
    assert client.post("/p/tales/rank/next/", {}, content_type="application/json").status_code == 200
    project.refresh_from_db()
    assert project.archived_at is None
