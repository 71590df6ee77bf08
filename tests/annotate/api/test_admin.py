"""The administration: what can be written goes through services, history cannot be written at all."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from annotate.models import (
    ApiToken,
    Change,
    Entry,
    ImportBatch,
    Membership,
    Project,
    ProjectVersion,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Review,
    Snapshot,
    User,
    Withdrawal,
)
from annotate.services.queue import next_leases
from annotate.services.reviews import review_ranking
from annotate.services.tokens import create_token
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.api.conftest import Cast
from tests.annotate.factories import make_task
from tests.annotate.helpers import submit

HISTORY = (Ranking, Change, ProjectVersion, Prompt, Response, RankingTask, Snapshot, ImportBatch, Review, Withdrawal)


@pytest.fixture
def sue(cast: Cast) -> Client:
    browser = Client()
    browser.force_login(cast.sue)
    return browser


@pytest.fixture
def ranking(cast: Cast, task: RankingTask, project: Project) -> Ranking:
    ranking = submit(next_leases(project=project, annotator=cast.bob)[0], cast.bob)
    review_ranking(ranking=ranking, reviewer=cast.rita, verdict="returned", note="Why so?")
    return ranking


@pytest.fixture
def withdrawn(cast: Cast, ranking: Ranking, project: Project) -> Withdrawal:
    return withdraw_prompt(prompt=make_task(project).prompt, by=cast.alice, reason="Letter of May")


def address(model: Any, page: str, *arguments: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=arguments)


def told(answer: Any) -> list[str]:
    return [str(message) for message in get_messages(answer.wsgi_request)]


@pytest.mark.usefixtures("ranking", "withdrawn")
def test_every_list_and_every_row_can_be_looked_at(sue: Client) -> None:
    assert len(admin.site._registry) > 15
    for model in admin.site._registry:
        assert sue.get(address(model, "changelist")).status_code == 200, model
        assert sue.get(address(model, "changelist"), {"q": "1"}).status_code == 200, model
        if (row := model._default_manager.first()) is not None:
            assert sue.get(address(model, "change", row.pk)).status_code == 200, model


@pytest.mark.parametrize("model", HISTORY, ids=lambda model: model.__name__)
@pytest.mark.usefixtures("ranking", "withdrawn")
def test_history_can_be_neither_written_nor_deleted(sue: Client, model: Any) -> None:
    row = model._default_manager.first()
    key = row.pk if row else 1
    assert sue.get(address(model, "add")).status_code == 403
    if row:
        assert sue.post(address(model, "change", key), {"counted": "", "all_bad": "on"}).status_code == 403
        assert sue.post(address(model, "delete", key), {"post": "yes"}).status_code == 403
    before = model._default_manager.count()
    sue.post(address(model, "changelist"), {"action": "delete_selected", "_selected_action": [key], "post": "yes"})
    assert model._default_manager.count() == before


def test_reviews_and_withdrawals_say_who_and_why(sue: Client, withdrawn: Withdrawal) -> None:
    reviews = sue.get(address(Review, "changelist"), {"q": "rita"}).content.decode()
    assert "Why so?" in reviews and "rita" in reviews
    withdrawals = sue.get(address(Withdrawal, "changelist"), {"q": "Letter"}).content.decode()
    assert "Letter of May" in withdrawals and "alice" in withdrawals
    assert "Letter of May" not in sue.get(address(Withdrawal, "changelist"), {"q": "June"}).content.decode()


def test_entries_have_no_page_of_their_own() -> None:
    assert Entry not in admin.site._registry


def test_nobody_is_deleted(sue: Client, cast: Cast) -> None:
    assert sue.post(address(User, "delete", cast.bob.pk), {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=cast.bob.pk).exists()


def test_an_account_is_made_and_can_log_in(sue: Client) -> None:
    form = {"username": "new", "password1": "quite-a-long-one-7", "password2": "quite-a-long-one-7"}
    answer = sue.post(address(User, "add"), form | {"usable_password": "true"})
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    assert Client().login(username="new", password="quite-a-long-one-7")


def test_a_token_is_shown_once_and_works(sue: Client, cast: Cast) -> None:
    form = {"user": cast.bob.pk, "name": "loader", "scopes": ["read", "write"]}
    answer = sue.post(address(ApiToken, "add"), form)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    secret = next(text for text in told(answer) if "pk_" in text).split("The token is ")[1].split()[0]
    assert APIClient().get("/api/v1/me/", headers={"Authorization": f"Token {secret}"}).json()["username"] == "bob"
    token = ApiToken.objects.get()
    assert token.scopes == ["read", "write"]
    for page in ("changelist", "change"):
        shown = sue.get(address(ApiToken, page, *([token.pk] if page == "change" else []))).content.decode()
        if page == "change":
            shown = sue.get(address(ApiToken, page, token.pk)).content.decode()
            assert secret not in shown
    assert sue.post(address(ApiToken, "change", token.pk), {"scopes": ["train"]}).status_code == 403


def test_a_token_is_revoked(sue: Client, cast: Cast) -> None:
    sue.post(address(ApiToken, "add"), {"user": cast.bob.pk, "name": "loader", "scopes": ["read"]})
    token = ApiToken.objects.get()
    sue.post(address(ApiToken, "changelist"), {"action": "revoke", "_selected_action": [token.pk]})
    token.refresh_from_db()
    assert token.revoked_at is not None and token.revoked_at <= timezone.now()


def test_a_new_password_ends_the_tokens_of_the_old_one(sue: Client, cast: Cast) -> None:
    create_token(user=cast.bob, name="script", scopes=["read"])
    create_token(user=cast.sue, name="script", scopes=["read"])
    form = {"password1": "quite-a-long-one-7", "password2": "quite-a-long-one-7", "usable_password": "true"}
    answer = sue.post(reverse("admin:auth_user_password_change", args=[cast.bob.pk]), form)
    assert answer.status_code == 302 and Client().login(username="bob", password="quite-a-long-one-7")
    assert [token.user for token in ApiToken.objects.filter(revoked_at=None)] == [cast.sue]


def test_a_project_made_here_has_rules_and_a_manager(sue: Client, cast: Cast) -> None:
    settings = {"lease_seconds": 600, "open_lease_limit": 2, "skip_limit": 3, "description": ""}
    inline = {"versions-TOTAL_FORMS": 0, "versions-INITIAL_FORMS": 0}
    form = {"slug": "poems", "name": "Poems", "overlap": 2} | settings | inline
    answer = sue.post(address(Project, "add"), form)
    assert answer.status_code == 302, answer.context["errors"]
    project = Project.objects.get(slug="poems")
    assert project.versions.count() == 1
    assert Membership.objects.get(project=project).user == cast.sue
    answer = sue.post(address(Project, "change", project.pk), form | {"overlap": 5, "slug": "other"})
    assert answer.status_code == 302, answer.context["errors"]
    project.refresh_from_db()
    assert (project.slug, project.overlap) == ("poems", 5)


def test_a_membership_is_given_and_changed(sue: Client, cast: Cast, project: Project) -> None:
    form = {"user": cast.charlie.pk, "project": project.pk, "role": "reviewer", "engineer": "on", "weight": "0.5"}
    assert sue.post(address(Membership, "add"), form).status_code == 302
    made = Membership.objects.get(user=cast.charlie, project=project)
    assert (made.role, made.engineer, made.weight) == ("reviewer", True, 0.5)
    sue.post(address(Membership, "change", made.pk), {"role": "viewer", "weight": "2"})
    made.refresh_from_db()
    assert (made.role, made.engineer, made.weight) == ("viewer", False, 2)


def test_a_held_task_goes_back_into_the_queue(sue: Client, cast: Cast, project: Project) -> None:
    task = make_task(project)
    RankingTask.objects.update(state="held")
    assert next_leases(project=project, annotator=cast.bob) == []
    sue.post(address(RankingTask, "changelist"), {"action": "release", "_selected_action": [task.pk]})
    assert [slot.task_id for slot in next_leases(project=project, annotator=cast.bob)] == [task.pk]


def test_the_admin_logs_in_through_our_form(cast: Cast) -> None:
    answer = Client().post("/admin/login/", {"username": "sue", "password": "sue"})
    assert answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")


def test_staff_without_permissions_sees_nothing(cast: Cast, ranking: Ranking) -> None:
    User.objects.filter(pk=cast.bob.pk).update(is_staff=True)
    browser = Client()
    browser.force_login(User.objects.get(pk=cast.bob.pk))
    for model in admin.site._registry:
        assert browser.get(address(model, "changelist")).status_code == 403
