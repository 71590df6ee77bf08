"""Invitations and members: who may invite, change, deactivate and let choose a new password."""

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from annotate.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from annotate.models import Membership, OneTimeLink, Project, Ranking, Role, Slot, User
from annotate.services.first_admin import make_first_admin, make_first_admin_link
from annotate.services.invitations import (
    accept_as_new_person,
    accept_invitation,
    create_invitation,
    get_invitation,
    open_invitations,
    revoke_invitation,
)
from annotate.services.members import (
    change_member,
    deactivate_member,
    make_password_link,
    reactivate_member,
    set_password_by_link,
)
from annotate.services.queue import next_leases
from annotate.services.tokens import create_token, find_token
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import at_once, submit

pytestmark = pytest.mark.django_db
GOOD = "quite-a-long-one-7"


@pytest.fixture
def project() -> Project:
    return make_project("tales", overlap=2)


@pytest.fixture
def mia(project: Project) -> User:
    return make_user("mia", project=project, role=Role.MANAGER)


def member(user: User, project: Project) -> Membership:
    return Membership.objects.get(user=user, project=project)


def code_of(secret: str) -> str:
    with pytest.raises(NotFound) as caught:
        get_invitation(secret)
    assert caught.value.message
    return caught.value.code


def invite(project: Project, by: User, role: str = Role.ANNOTATOR, **options: object) -> str:
    return create_invitation(project=project, by=by, role=role, **options)[1]  # type: ignore[arg-type]


# --- invitations -----------------------------------------------------------------------------------------------------


def test_an_invitation_makes_a_member_with_its_role_once(project: Project, mia: User) -> None:
    secret = invite(project, mia, Role.REVIEWER, note="  Rita  ")
    (link,) = open_invitations(project)
    assert (link.note, link.created_by) == ("Rita", mia)
    assert timedelta(days=6, hours=23) < link.expires_at - timezone.now() <= timedelta(days=7)
    membership = accept_as_new_person(secret=secret, username="rita", password=GOOD)
    assert (membership.role, membership.engineer) == (Role.REVIEWER, False)
    assert User.objects.get(username="rita").check_password(GOOD)
    assert open_invitations(project) == [] and code_of(secret) == "link_used"
    with pytest.raises(NotFound):
        accept_invitation(secret=secret, user=make_user())
    link.refresh_from_db()
    assert link.used_by == membership.user


def test_a_link_that_is_over_says_why(project: Project, mia: User) -> None:
    revoked, expired = invite(project, mia), invite(project, mia)
    revoke_invitation(project=project, link_id=OneTimeLink.objects.order_by("pk")[0].pk)
    OneTimeLink.objects.filter(revoked_at=None).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert [code_of(revoked), code_of(expired), code_of("invented")] == ["link_revoked", "link_expired", "link_unknown"]
    with pytest.raises(NotFound):
        revoke_invitation(project=make_project(), link_id=OneTimeLink.objects.order_by("pk")[0].pk)


def test_only_the_hash_of_a_link_is_kept(project: Project, mia: User) -> None:
    secrets = [invite(project, mia), make_password_link(membership=member(make_user(project=project), project), by=mia)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(row_to_json(link)::text, '') FROM annotate_onetimelink link")
        stored = cursor.fetchone()[0]
    assert not any(secret in stored for secret in secrets)


def test_a_link_does_only_what_it_was_made_for(project: Project, mia: User) -> None:
    invitation = invite(project, mia)
    password = make_password_link(membership=member(make_user(project=project), project), by=mia)
    for secret in (invitation, password):
        with pytest.raises(NotFound):
            make_first_admin(secret=secret, username="root", password=GOOD)
    with pytest.raises(NotFound):
        set_password_by_link(secret=invitation, password=GOOD)
    assert code_of(password) == "link_unknown"
    make_first_admin_link()
    assert get_invitation(invitation).project == project


def test_who_may_invite_whom(project: Project, mia: User) -> None:
    for role in Role.values:
        assert get_invitation(invite(project, mia, role)).role == role
    with pytest.raises(Forbidden):
        invite(project, mia, engineer=True)
    with pytest.raises(Invalid):
        invite(project, mia, "owner")
    for role in (Role.VIEWER, Role.ANNOTATOR, Role.REVIEWER):
        with pytest.raises(Forbidden):
            invite(project, make_user(project=project, role=role, engineer=True))
    with pytest.raises(NotFound):
        invite(project, make_user())
    both = make_user(project=project, role=Role.MANAGER, engineer=True)
    assert get_invitation(invite(project, both, engineer=True)).engineer
    assert get_invitation(invite(project, make_user(is_superuser=True), engineer=True)).engineer


def test_an_invitation_dies_with_the_right_of_its_author(project: Project) -> None:
    author = make_user("ada", project=project, role=Role.MANAGER, engineer=True)
    plain, engineer = invite(project, author), invite(project, author, engineer=True)
    Membership.objects.filter(user=author).update(engineer=False)
    assert get_invitation(plain) and code_of(engineer) == "link_revoked"
    Membership.objects.filter(user=author).update(deactivated_at=timezone.now())
    assert code_of(plain) == "link_revoked"
    with pytest.raises(NotFound):
        accept_invitation(secret=plain, user=author)


def test_a_member_keeps_their_role_and_the_link_stays_for_someone_else(project: Project, mia: User) -> None:
    secret = invite(project, mia, Role.VIEWER)
    with pytest.raises(Conflict):
        accept_invitation(secret=secret, user=mia)
    assert member(mia, project).role == Role.MANAGER
    bob = make_user("bob", project=project)
    deactivate_member(membership=member(bob, project), by=mia)
    assert accept_invitation(secret=secret, user=bob).deactivated_at is None
    assert member(bob, project).role == Role.VIEWER


def test_a_taken_name_leaves_the_link_open(project: Project, mia: User) -> None:
    secret = invite(project, mia)
    with pytest.raises(Invalid):
        accept_as_new_person(secret=secret, username="MIA", password=GOOD)
    assert get_invitation(secret)


@pytest.mark.django_db(transaction=True)
def test_of_six_who_accept_at_once_one_gets_in(project: Project, mia: User) -> None:
    secret = invite(project, mia)
    results = at_once(6, lambda number: accept_as_new_person(secret=secret, username=f"new{number}", password=GOOD))
    assert sum(isinstance(result, Membership) for result in results) == 1
    assert sum(isinstance(result, NotFound) for result in results) == 5
    assert Membership.objects.count() == 2 and User.objects.count() == 2


# --- members ---------------------------------------------------------------------------------------------------------


def test_a_manager_changes_roles_and_weights(project: Project, mia: User) -> None:
    bob = member(make_user("bob", project=project), project)
    changed = change_member(membership=bob, by=mia, role=Role.REVIEWER, engineer=False, weight=0.5)
    assert (changed.role, changed.weight) == (Role.REVIEWER, 0.5)
    with pytest.raises(Forbidden):
        change_member(membership=bob, by=mia, role=Role.REVIEWER, engineer=True, weight=1)
    for wrong in ({"role": "owner", "weight": 1.0}, {"role": Role.VIEWER, "weight": 101.0}):
        with pytest.raises(Invalid):
            change_member(membership=bob, by=mia, engineer=False, **wrong)  # type: ignore[arg-type]
    with pytest.raises(Forbidden):
        change_member(membership=member(mia, project), by=bob.user, role=Role.VIEWER, engineer=False, weight=1)
    # Whoever is an engineer stays one when somebody who is none changes something else.
    eve = member(make_user("eve", project=project, engineer=True), project)
    assert change_member(membership=eve, by=mia, role=Role.VIEWER, engineer=True, weight=1).engineer


def test_the_last_manager_stays(project: Project, mia: User) -> None:
    own = member(mia, project)
    with pytest.raises(Conflict):
        deactivate_member(membership=own, by=mia)
    with pytest.raises(Conflict):
        change_member(membership=own, by=mia, role=Role.REVIEWER, engineer=False, weight=1)
    make_user("idle", project=project, role=Role.MANAGER, is_active=False)
    with pytest.raises(Conflict):
        deactivate_member(membership=own, by=mia)
    make_user("second", project=project, role=Role.MANAGER)
    deactivate_member(membership=own, by=mia)
    assert member(mia, project).deactivated_at is not None


@pytest.mark.django_db(transaction=True)
def test_of_two_managers_who_leave_at_once_one_stays(project: Project, mia: User) -> None:
    own, other = member(mia, project), member(make_user("max", project=project, role=Role.MANAGER), project)

    def leave() -> object:
        try:
            return deactivate_member(membership=other, by=other.user)
        except Conflict as refused:
            return refused.code
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            deactivate_member(membership=own, by=mia)
            second = pool.submit(leave)
            assert not wait([second], timeout=0.3).done  # it waits to see how this one ends
        assert second.result(timeout=30) == "last_manager"
    assert Membership.objects.filter(role=Role.MANAGER, deactivated_at=None).count() == 1


def test_deactivation_returns_leases_and_keeps_rankings(project: Project, mia: User) -> None:
    for _ in range(3):
        make_task(project, overlap=2)
    bob = make_user("bob", project=project)
    submit(next_leases(project=project, annotator=bob)[0], bob)
    held = next_leases(project=project, annotator=bob, count=2)
    assert deactivate_member(membership=member(bob, project), by=mia) == 2
    assert not Slot.objects.filter(state="leased").exists()
    assert Ranking.objects.filter(annotator=bob).count() == 1
    other = make_user("other", project=project)
    taken = set()
    while leased := next_leases(project=project, annotator=other):
        taken.add(leased[0].task_id)
        submit(leased[0], other)
    assert {slot.task_id for slot in held} <= taken
    reactivate_member(membership=member(bob, project), by=mia)
    assert {slot.task_id for slot in next_leases(project=project, annotator=bob, count=2)} == {
        slot.task_id for slot in held
    }


def test_only_an_engineer_brings_an_engineer_back(project: Project, mia: User) -> None:
    eve = member(make_user("eve", project=project, engineer=True), project)
    deactivate_member(membership=eve, by=mia)
    with pytest.raises(Forbidden):
        reactivate_member(membership=eve, by=mia)


# --- new passwords ---------------------------------------------------------------------------------------------------


def test_a_password_link_works_once_and_ends_other_sessions(project: Project, mia: User) -> None:
    bob = make_user("bob", project=project)
    elsewhere = Client()
    assert elsewhere.login(username="bob", password="bob")
    old = make_password_link(membership=member(bob, project), by=mia)
    secret = make_password_link(membership=member(bob, project), by=mia)
    with pytest.raises(NotFound):
        set_password_by_link(secret=old, password=GOOD)
    with pytest.raises(ValidationError):
        set_password_by_link(secret=secret, password="12345")
    hers, his = (create_token(user=user, name="script", scopes=["read"])[1] for user in (mia, bob))
    assert set_password_by_link(secret=secret, password=GOOD) == bob
    bob.refresh_from_db()
    assert find_token(his) is None and find_token(hers) is not None
    assert bob.check_password(GOOD)
    assert elsewhere.get("/").status_code == 302
    with pytest.raises(NotFound):
        set_password_by_link(secret=secret, password=GOOD)


def test_nobody_gets_into_an_account_that_can_do_more_than_they(project: Project, mia: User) -> None:
    other = make_project("other")

    def refused(person: User) -> bool:
        try:
            make_password_link(membership=member(person, project), by=mia)
        except Refused as problem:
            return isinstance(problem, Forbidden) and problem.message.endswith(".")
        return False

    assert not refused(make_user("plain", project=project))
    assert refused(make_user("root", project=project, is_superuser=True))
    assert refused(make_user("staff", project=project, is_staff=True))
    assert refused(make_user("engineer", project=project, engineer=True))
    assert refused(make_user("machine", project=project, kind=User.Kind.MACHINE))
    assert refused(make_user("gone", project=project, is_active=False))
    abroad = make_user("abroad", project=project)
    Membership.objects.create(project=other, user=abroad)
    assert refused(abroad)
    Membership.objects.create(project=other, user=mia, role=Role.REVIEWER)
    assert refused(abroad)
    Membership.objects.filter(project=other, user=mia).update(role=Role.MANAGER)
    assert not refused(abroad)
    Membership.objects.filter(project=other, user=abroad).update(engineer=True)
    assert refused(abroad)
    Membership.objects.filter(project=other, user=abroad).update(deactivated_at=timezone.now())
    assert not refused(abroad)
    assert make_password_link(membership=member(abroad, project), by=make_user("sue", is_superuser=True))


def test_a_password_link_dies_when_the_person_is_given_more(project: Project, mia: User) -> None:
    bob = make_user("bob", project=project)
    secret = make_password_link(membership=member(bob, project), by=mia)
    Membership.objects.create(project=make_project("other"), user=bob)
    with pytest.raises(NotFound):
        set_password_by_link(secret=secret, password=GOOD)
    bob.refresh_from_db()
    assert bob.check_password("bob")
