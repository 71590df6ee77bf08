"""The same key, the same body: the first answer, however often and however simultaneous."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from annotate.models import IdempotencyKey, Project, Ranking, RankingTask, Role
from tests.annotate.api.conftest import Cast, ClientFor, token_client
from tests.annotate.api.helpers import answer_to, error_of, take
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import at_once

RANKINGS = "/api/v1/projects/tales/rankings/"


def with_key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


@pytest.fixture
def bob(cast: Cast, task: RankingTask, client_for: ClientFor) -> APIClient:
    return client_for(cast.bob)


def test_a_repeated_submit_gets_the_first_answer(bob: APIClient) -> None:
    body = answer_to(take(bob, "tales"))
    first = bob.post(RANKINGS, body, headers=with_key("k1"))
    again = bob.post(RANKINGS, body, headers=with_key("k1"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "Idempotent-Replay" not in first and again["Idempotent-Replay"] == "true"
    assert Ranking.objects.count() == 1


def test_the_same_key_with_another_body_is_422(bob: APIClient) -> None:
    lease = take(bob, "tales")
    bob.post(RANKINGS, answer_to(lease), headers=with_key("k1"))
    answer = bob.post(RANKINGS, answer_to(lease, seconds=1), headers=with_key("k1"))
    error_of(answer, 422, "idempotency_key_reused")
    assert Ranking.objects.count() == 1


def test_without_a_key_a_second_submit_is_409(bob: APIClient) -> None:
    body = answer_to(take(bob, "tales"))
    assert bob.post(RANKINGS, body).status_code == 201
    error_of(bob.post(RANKINGS, body), 409, "already_submitted")


def test_a_key_belongs_to_one_person_and_one_address(
    bob: APIClient, cast: Cast, project: Project, client_for: ClientFor
) -> None:
    make_task(project, overlap=2)
    dora = client_for(cast.dora)
    bob.post(RANKINGS, answer_to(take(bob, "tales")), headers=with_key("k"))
    assert dora.post(RANKINGS, answer_to(take(dora, "tales")), headers=with_key("k")).status_code == 201
    lease = take(bob, "tales")
    skipped = bob.post(f"/api/v1/leases/{lease['id']}/skip/", {"reason": "long"}, headers=with_key("k"))
    assert skipped.status_code == 204
    assert IdempotencyKey.objects.count() == 3


def test_an_answer_without_content_is_replayed_too(bob: APIClient) -> None:
    address, body = f"/api/v1/leases/{take(bob, 'tales')['id']}/skip/", {"reason": "long"}
    assert bob.post(address, body, headers=with_key("k")).status_code == 204
    again = bob.post(address, body, headers=with_key("k"))
    assert again.status_code == 204 and again["Idempotent-Replay"] == "true"
    error_of(bob.post(address, body), 409, "lease_ended")


def test_a_refused_request_may_be_corrected_under_its_key(bob: APIClient) -> None:
    lease = take(bob, "tales")
    error_of(bob.post(RANKINGS, answer_to(lease, ranking=[]), headers=with_key("k")), 422)
    error_of(bob.post(RANKINGS, answer_to(lease, seconds=-1), headers=with_key("k")), 400)
    assert not IdempotencyKey.objects.exists()
    assert bob.post(RANKINGS, answer_to(lease), headers=with_key("k")).status_code == 201


@pytest.mark.parametrize("key", ["", "k" * 201, "schlüssel", "a\tb"])
def test_a_key_that_cannot_be_kept_is_400(bob: APIClient, key: str) -> None:
    answer = bob.post(RANKINGS, answer_to(take(bob, "tales")), headers=with_key(key))
    assert list(error_of(answer, 400)["fields"]) == ["Idempotency-Key"]


def test_a_key_of_200_characters_is_kept(bob: APIClient) -> None:
    assert bob.post(RANKINGS, answer_to(take(bob, "tales")), headers=with_key("k" * 200)).status_code == 201


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key", ["one", None])
def test_eight_identical_submits_at_once_make_one_ranking(key: str | None) -> None:
    project = make_project("crowd", overlap=3)
    make_task(project, overlap=3)
    bob = token_client(make_user("bob", project=project))
    body = answer_to(take(bob, "crowd"))
    headers = with_key(key) if key else {}
    authorization = bob._credentials

    def send(_: int) -> tuple[int, str]:
        client = APIClient()
        client.credentials(**authorization)
        answer = client.post("/api/v1/projects/crowd/rankings/", body, headers=headers)
        return answer.status_code, str(sorted(answer.json().items()))

    answers = at_once(8, send)
    assert Ranking.objects.count() == 1
    if key:
        assert len(set(answers)) == 1 and answers[0][0] == 201
    else:
        assert sorted(status for status, _ in answers) == [201, *[409] * 7]


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_the_second_acts_if_the_first_fails() -> None:
    """The first holds the key in an open transaction and rolls back: the second must not be told of an answer."""
    project = make_project("crowd")
    make_task(project)
    user = make_user("bob", project=project, role=Role.ANNOTATOR)
    bob = token_client(user)
    body = answer_to(take(bob, "crowd"))
    import threading

    from django.db import transaction

    claimed, waiting = threading.Event(), threading.Event()

    def first() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO annotate_idempotencykey (user_id, endpoint, key, body_sha256, status, answer, created_at)"
                " VALUES (%s, '/api/v1/projects/crowd/rankings/', 'k', %s, 0, 'null', now())",
                [user.pk, "0" * 64],
            )
            claimed.set()
            waiting.wait(timeout=30)
            transaction.set_rollback(True)

    def second() -> int:
        claimed.wait(timeout=30)
        threading.Timer(0.5, waiting.set).start()
        return bob.post("/api/v1/projects/crowd/rankings/", body, headers=with_key("k")).status_code

    _, status = at_once(2, lambda index: first() if index == 0 else second())
    assert status == 201
    assert IdempotencyKey.objects.get().status == 201


def test_old_keys_are_forgotten_when_asked(bob: APIClient, capsys: pytest.CaptureFixture[str]) -> None:
    body = answer_to(take(bob, "tales"))
    bob.post(RANKINGS, body, headers=with_key("old"))
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(days=91))
    call_command("forget_keys", dry_run=True)
    assert capsys.readouterr().out == "Keys older than 90 days: 1 would be deleted\n"
    call_command("forget_keys", days=92)
    assert IdempotencyKey.objects.count() == 1
    call_command("forget_keys")
    assert not IdempotencyKey.objects.exists()
    error_of(bob.post(RANKINGS, body, headers=with_key("old")), 409, "already_submitted")
