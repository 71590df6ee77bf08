"""The pages of invitations, members and new passwords over HTTP."""

import re

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from annotate.models import Membership, OneTimeLink, Project, Role, User
from annotate.services.invitations import create_invitation
from annotate.services.members import make_password_link
from tests.annotate.factories import make_project, make_user
from tests.annotate.pages.test_pages import browser

pytestmark = pytest.mark.django_db
CHOSEN = {"username": "lena", "password1": "quite-a-long-one-7", "password2": "quite-a-long-one-7"}


@pytest.fixture
def project() -> Project:
    return make_project("tales")


@pytest.fixture
def mia(project: Project) -> User:
    return make_user("mia", project=project, role=Role.MANAGER)


def invitation(project: Project, mia: User, role: str = Role.ANNOTATOR) -> str:
    _, secret = create_invitation(project=project, by=mia, role=role)
    return reverse("invitation", args=[secret])


def test_the_link_is_shown_once_and_leads_to_an_account(project: Project, mia: User) -> None:
    manager, address = browser(mia), reverse("people", args=[project.slug])
    made = manager.post(address, {"note": "Lena", "role": "reviewer"})
    link = re.search(r'value="http://testserver(/accounts/invitation/[^"]+)"', made.content.decode())
    assert link is not None and "no-store" in made["Cache-Control"]
    page = manager.get(address).content.decode()
    assert link[1] not in page and "Lena" in page and "reviewer" in page
    new = Client()
    assert "invites you as reviewer" in new.get(link[1]).content.decode()
    joined = new.post(link[1], CHOSEN)
    assert (joined.status_code, joined["Location"]) == (302, "/p/tales/")
    assert new.get("/p/tales/tasks/").status_code == 200
    assert "Lena" not in manager.get(address).content.decode()


def test_looking_changes_nothing_and_an_account_is_made_only_with_a_good_password(project: Project, mia: User) -> None:
    address, new = invitation(project, mia), Client()
    for _ in range(2):
        assert new.get(address).status_code == 200
        assert new.head(address).status_code == 200
    for changes in ({"password2": "another-one-77"}, {"password1": "12345678", "password2": "12345678"}):
        assert new.post(address, CHOSEN | changes).status_code == 400
    taken = new.post(address, CHOSEN | {"username": "Mia"})
    assert taken.status_code == 400 and "This name is taken." in taken.content.decode()
    assert OneTimeLink.objects.get().used_at is None and Membership.objects.count() == 1
    assert Client(enforce_csrf_checks=True).post(address, CHOSEN).status_code == 403


def test_whoever_has_an_account_logs_in_and_comes_back(project: Project, mia: User) -> None:
    address = invitation(project, mia)
    bob, client = make_user("bob"), Client()
    page = client.get(address).content.decode()
    assert f"/accounts/login/?next={address}" in page
    back = client.post(f"/accounts/login/?next={address}", {"login": "bob", "password": "bob"})
    assert back["Location"] == address
    assert "You are logged in as <b>bob</b>" in client.get(address).content.decode()
    assert not Membership.objects.filter(user=bob).exists()
    assert client.post(address)["Location"] == "/p/tales/"
    assert Membership.objects.get(user=bob).role == Role.ANNOTATOR
    again = Client().get(address)
    assert again.status_code == 404 and "used already" in again.content.decode()


def test_a_member_is_told_so(project: Project, mia: User) -> None:
    address = invitation(project, mia)
    page = browser(mia).get(address).content.decode()
    assert "member of this project already" in page and ">Join<" not in page
    answer = browser(mia).post(address)
    assert answer.status_code == 409 and "member of this project already" in answer.content.decode()


def test_an_invitation_can_be_revoked(project: Project, mia: User) -> None:
    address = invitation(project, mia)
    revoke = reverse("invitation_revoke", args=[project.slug, OneTimeLink.objects.get().pk])
    assert browser(mia).post(revoke).status_code == 302
    over = Client().get(address)
    assert over.status_code == 404 and "was revoked" in over.content.decode()
    for odd in ("x", "%00", "é"):
        assert Client().get(f"/accounts/invitation/{odd}/").status_code == 404


def test_only_an_engineer_gives_the_engineer_right(project: Project, mia: User) -> None:
    address = reverse("people", args=[project.slug])
    assert browser(mia).post(address, {"role": "viewer", "engineer": "on"}).status_code == 200
    assert OneTimeLink.objects.get().engineer is False
    eve = make_user("eve", project=project, role=Role.MANAGER, engineer=True)
    browser(eve).post(address, {"role": "viewer", "engineer": "on"})
    assert OneTimeLink.objects.filter(engineer=True).count() == 1
    bob = make_user("bob", project=project)
    member = Membership.objects.get(user=bob)
    browser(mia).post(reverse("member", args=["tales", member.pk]), {"role": "viewer", "weight": 1, "engineer": "on"})
    member.refresh_from_db()
    assert (member.role, member.engineer) == (Role.VIEWER, False)


def test_a_member_is_changed_deactivated_and_brought_back(project: Project, mia: User) -> None:
    bob, manager = make_user("bob", project=project), browser(mia)
    member = Membership.objects.get(user=bob)
    address = reverse("member", args=["tales", member.pk])
    assert manager.post(address, {"role": "reviewer", "weight": "0.5"})["Location"] == "/p/tales/people/"
    assert manager.post(address, {"role": "reviewer", "weight": "-1"}).status_code == 422
    member.refresh_from_db()
    assert (member.role, member.weight) == (Role.REVIEWER, 0.5)
    manager.post(reverse("member_deactivate", args=["tales", member.pk]))
    assert browser(bob).get("/p/tales/").status_code == 404
    assert "deactivated" in manager.get("/p/tales/people/").content.decode()
    manager.post(reverse("member_reactivate", args=["tales", member.pk]))
    assert browser(bob).get("/p/tales/").status_code == 200


def test_the_last_manager_cannot_leave(project: Project, mia: User) -> None:
    own = Membership.objects.get(user=mia)
    answer = browser(mia).post(reverse("member_deactivate", args=["tales", own.pk]))
    assert [str(one) for one in get_messages(answer.wsgi_request)] == [
        "This is the project's only manager; make someone else a manager first."
    ]
    step_down = browser(mia).post(reverse("member", args=["tales", own.pk]), {"role": "viewer", "weight": 1})
    assert step_down.status_code == 422 and "only manager" in step_down.content.decode()


def test_members_of_other_projects_are_out_of_reach(project: Project, mia: User) -> None:
    stranger = make_user("stranger", project=make_project("other"))
    member = Membership.objects.get(user=stranger)
    for name in ("member", "member_deactivate", "member_password_link"):
        assert browser(mia).post(reverse(name, args=["tales", member.pk])).status_code == 404


def test_a_new_password_by_link(project: Project, mia: User) -> None:
    bob = make_user("bob", project=project)
    old = browser(bob)
    member = Membership.objects.get(user=bob)
    made = browser(mia).post(reverse("member_password_link", args=["tales", member.pk]))
    link = re.search(r'value="http://testserver(/accounts/password-link/[^"]+)"', made.content.decode())
    assert link is not None and "no-store" in made["Cache-Control"]
    person = Client()
    assert "bob" in person.get(link[1]).content.decode()
    weak = {"new_password1": "bob", "new_password2": "bob"}
    assert person.post(link[1], weak).status_code == 400
    assert old.get("/").status_code == 200
    good = {"new_password1": "quite-a-long-one-7", "new_password2": "quite-a-long-one-7"}
    assert person.post(link[1], good)["Location"] == "/"
    assert person.get("/api/v1/me/").json()["username"] == "bob"
    assert old.get("/").status_code == 302
    assert Client().get(link[1]).status_code == 404


def test_no_link_is_made_for_a_stronger_account_and_the_page_says_why(project: Project, mia: User) -> None:
    root = make_user("root", project=project, is_superuser=True)
    member = Membership.objects.get(user=root)
    page = browser(mia).get(reverse("member", args=["tales", member.pk])).content.decode()
    assert "an administrator makes the link" in page and "Their other sessions end" not in page
    assert browser(mia).post(reverse("member_password_link", args=["tales", member.pk])).status_code == 403
    assert not OneTimeLink.objects.exists()


def test_a_password_link_is_no_invitation(project: Project, mia: User) -> None:
    member = Membership.objects.get(user=make_user("bob", project=project))
    secret = make_password_link(membership=member, by=mia)
    assert Client().get(reverse("invitation", args=[secret])).status_code == 404
    assert Client().get(reverse("first-admin", args=[secret])).status_code == 404
