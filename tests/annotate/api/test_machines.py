"""Machines over REST: made by managers, a token told once and never kept, sent away and brought back."""

import pytest

from annotate.models import ApiToken, IdempotencyKey, Membership, Project, RankingTask
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import answer_to

pytestmark = pytest.mark.django_db
URL = "/api/v1/projects/tales/machines/"


def test_a_machine_from_first_to_last(cast: Cast, project: Project, task: RankingTask, client_for: ClientFor) -> None:
    alice, machine = client_for(cast.alice), client_for(cast.alice)
    made = alice.post(URL, {"name": "judge", "open_lease_limit": 3})
    assert made.status_code == 201
    told = made.json()
    one = f"{URL}{told['id']}/"
    assert (told["username"], told["open_lease_limit"], told["fills_places"]) == ("tales.judge", 3, False)

    def as_machine(token: str) -> int:
        machine.credentials(HTTP_AUTHORIZATION=f"Token {token}")
        return machine.get("/api/v1/me/").status_code

    assert as_machine(told["token"]) == 200
    (lease,) = machine.post("/api/v1/projects/tales/next/", {"count": 3}).json()["leases"]
    assert machine.post("/api/v1/projects/tales/rankings/", answer_to(lease)).status_code == 201
    assert machine.get(URL).status_code == 403

    changed = alice.patch(one, {"weight": 0.5, "fills_places": True}).json()
    assert (changed["weight"], changed["fills_places"], changed["open_lease_limit"]) == (0.5, True, 3)
    assert alice.get(one).json() == changed == alice.get(URL).json()["results"][0]
    assert (changed["rankings"], changed["open"]) == (1, 0) and "token" not in changed
    assert alice.patch(one, {"weight": 101}).status_code == 400

    renewed = alice.post(f"{one}token/").json()["token"]
    assert as_machine(told["token"]) == 401 and as_machine(renewed) == 200
    assert [alice.delete(one).status_code for _ in range(2)] == [204, 204]
    assert as_machine(renewed) == 401
    gone = alice.get(one).json()
    assert gone["deactivated_at"] and gone["rankings"] == 1
    again = alice.post(f"{one}token/").json()
    assert again["deactivated_at"] is None and as_machine(again["token"]) == 200


def test_a_token_is_told_once_and_kept_nowhere(cast: Cast, client_for: ClientFor) -> None:
    alice = client_for(cast.alice)
    first, second = (alice.post(URL, {"name": "judge"}, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json()["token"].startswith("pk_") and second["Idempotent-Replay"] == "true"
    assert second.json() == first.json() | {"token": None}
    assert first.json()["token"] not in str(IdempotencyKey.objects.get().answer)
    assert ApiToken.objects.filter(user__kind="machine").count() == 1


def test_people_are_no_machines_and_names_are_checked(cast: Cast, project: Project, client_for: ClientFor) -> None:
    alice = client_for(cast.alice)
    bob = Membership.objects.get(project=project, user=cast.bob)
    assert alice.get(f"{URL}{bob.pk}/").status_code == alice.delete(f"{URL}{bob.pk}/").status_code == 404
    assert alice.post(f"{URL}{bob.pk}/token/").status_code == 404
    assert set(alice.post(URL, {"name": "Not so"}).json()["error"]["fields"]) == {"name"}
    assert alice.post(URL, {"name": "x", "role": "manager"}).status_code == 400
