"""People who came with an import: on the page of people with their counts, and withdrawn as members are."""

from typing import Any

import pytest
from django.urls import reverse

from annotate.interchange.native import record_from_object
from annotate.models import Membership, Project, Ranking, Role, User, Withdrawal
from annotate.selectors import imported_people
from annotate.services.imports import import_records
from annotate.services.queue import next_leases
from annotate.services.withdrawals import withdraw_ranking
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit
from tests.annotate.pages.test_manager_pages import text_of
from tests.annotate.pages.test_pages import browser

pytestmark = pytest.mark.django_db
PEOPLE = "/p/tales/people/"


def bring(project: Project, annotator: str, prompts: int = 1, **more: Any) -> User:
    """Rankings of somebody elsewhere, of prompts of their own."""
    two = [{"id": "a", "text": "Yes"}, {"id": "b", "text": "No"}]
    for number in range(prompts):
        line = {"prompt": f"{annotator} {number}?", "responses": two, "ranking": [["a"], ["b"]], "annotator": annotator}
        report = import_records(project=project, records=[record_from_object(line | {"rationale": "Said Ann."} | more)])
        assert report.written == 1
    return User.objects.get(first_name=annotator, username__contains=f":{project.slug}:")


@pytest.fixture
def project() -> Project:
    return make_project("tales")


@pytest.fixture
def mia(project: Project) -> User:
    return make_user("mia", project=project, role=Role.MANAGER)


def test_each_stands_on_the_page_of_people_with_what_they_ranked(project: Project, mia: User) -> None:
    assert "Came with imported data" not in text_of(mia, PEOPLE)
    ann, example = bring(project, "Ann", 3), bring(project, "Eve", annotator_kind="example")
    withdraw_ranking(ranking=Ranking.objects.filter(annotator=ann).latest("pk"))
    bring(make_project("other"), "Otto")
    bob = make_user("bob", project=project)
    make_task(project)
    submit(next_leases(project=project, annotator=bob)[0], bob)
    page = text_of(mia, PEOPLE)
    here = page[page.index("Came with imported data") : page.index("Invite someone")]
    assert '<td role="cell" class="break">Ann</td> <td role="cell" data-label="Rankings">2</td>' in here
    assert 'Eve <span class="soft">(Example)</span>' in here and "Otto" not in here and "bob" not in here
    for one in (ann, example):
        assert reverse("imported_withdraw", args=["tales", one.pk]) in here
    Membership.objects.filter(user=bob).delete()  # nobody's page would lead to what he wrote
    assert "bob" in text_of(mia, PEOPLE).split("Came with imported data")[1]


def test_many_come_in_pages_and_are_found_by_name(project: Project, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported_people, "PAGE", 2)
    for name in ("Ann", "Ben", "Cleo & co", "Dan", "Eva"):
        bring(project, name)
    seen, after = [], ""
    while True:
        found, following = imported_people.page_of_imported(project, after=after)
        seen += [one.name for one in found]
        if following is None:
            break
        after = following
    assert seen == ["Ann", "Ben", "Cleo & co", "Dan", "Eva"]
    page = text_of(mia, f"{PEOPLE}?imported=&after=imported%3Atales%3ABen")
    assert "Cleo &amp; co" in page and ">Ann<" not in page and "imported=&amp;after=imported%3Atales%3ADan" in page
    page = text_of(mia, f"{PEOPLE}?imported=leo+%26")
    assert "Cleo &amp; co" in page and "Dan" not in page and "Next names" not in page
    assert "Nobody is called so." in text_of(mia, f"{PEOPLE}?imported=Zoe%00")


def test_one_is_withdrawn_as_a_member_is(project: Project, mia: User) -> None:
    ann, ben = bring(project, "Ann", 2), bring(project, "Ben")
    address = reverse("imported_withdraw", args=["tales", ann.pk])
    page = text_of(mia, address)
    assert "Withdraw what Ann wrote" in page and "2 rankings (revisions counted)" in page
    assert "2 notes on rankings" in page and "Deactivate" not in page and not Withdrawal.objects.exists()
    manager = browser(mia)
    assert manager.post(address, {"reason": "x" * 201}).status_code == 422 and not Withdrawal.objects.exists()
    assert manager.post(address, {"reason": "Letter of May"})["Location"] == address
    row = Withdrawal.objects.get()
    assert (row.annotator, row.by, row.reason, row.counts["rankings"]) == (ann, mia, "Letter of May", 2)
    assert Ranking.objects.get(withdrawn_at=None).annotator == ben
    page = text_of(mia, address)
    assert "Nothing of Ann's stands in this project." in page and "Letter of May" in page and "imported:" not in page
    assert 'data-label="Rankings">0</td>' in text_of(mia, PEOPLE)


def test_only_who_came_to_this_project_and_is_no_member_is_reached_so(project: Project, mia: User) -> None:
    bring(project, "Ann")
    bob = make_user("bob", project=project)
    make_task(project)
    submit(next_leases(project=project, annotator=bob)[0], bob)
    others = bring(make_project("other"), "Otto")
    for person in (bob, others, mia, make_user("nobody")):
        address = reverse("imported_withdraw", args=["tales", person.pk])
        assert browser(mia).get(address).status_code == browser(mia).post(address).status_code == 404
    assert not Withdrawal.objects.exists()


def test_names_are_those_of_the_data(project: Project) -> None:
    assert imported_people.name_of(bring(project, "Ann: the second")) == "Ann: the second"
    assert imported_people.name_of(make_user("carla", first_name="Carla C.")) == "carla"
