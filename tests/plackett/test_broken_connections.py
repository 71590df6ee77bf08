"""64 clients at once through a network that breaks: nothing they were told is lost, nothing is there twice."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.db.models import Count, Q

from annotate.models import Lease, Project, Ranking, RankingTask, Slot
from annotate.services.tokens import create_token
from plackett import Client, Disconnected, PlackettError
from tests.annotate.factories import make_project, make_task, make_user
from tests.plackett.cutting import FATES, Network, broken_network
from tests.web import web_server

CLIENTS = 64
OVERLAP = 3
SLUG = "crowd"
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@dataclass
class Told:
    """What the clients were told: ids of rankings that are saved, and what they gave up, by lease."""

    saved: list[int] = field(default_factory=list)
    given_up: dict[str, PlackettError] = field(default_factory=dict)


def test_64_clients_lose_and_double_nothing_where_1_in_20_connections_breaks(tmp_path: Path) -> None:
    told, network = rank_everything(tmp_path, tasks=60, share=0.05, seed=7)
    assert set(FATES) <= set(network.fates), network.fates
    check(told, tasks=60)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3))
def test_64_clients_where_1_in_5_connections_breaks(tmp_path: Path, seed: int) -> None:
    told, _network = rank_everything(tmp_path, tasks=400, share=0.2, seed=seed)
    check(told, tasks=400)


def rank_everything(home: Path, *, tasks: int, share: float, seed: int) -> tuple[Told, Network]:
    """All clients rank until nothing is left for them, over gunicorn as production runs it."""
    project = make_project(SLUG, overlap=OVERLAP)
    for _ in range(tasks):
        make_task(project, overlap=OVERLAP)
    tokens = [token_of(project) for _ in range(CLIENTS)]
    told = Told()
    with (
        web_server(home, workers=2, threads=8) as (server, _),
        broken_network(server, share=share, seed=seed) as network,
    ):
        problems = all_at_once([lambda token=token: rank(network.address, token, told) for token in tokens])
        assert problems == [], (problems[:3], network.fates)
    return told, network


def token_of(project: Project) -> str:
    return create_token(user=make_user(project=project), name="t", scopes=["annotate"])[1]


def rank(address: str, token: str, told: Told) -> None:
    with Client(address, token) as client:
        while leases := client.next_leases(SLUG, 2):
            for lease in leases:
                order = [[one["id"]] for one in lease["responses"]]
                try:
                    told.saved.append(int(client.submit_ranking(SLUG, lease["id"], order)["id"]))
                except PlackettError as problem:
                    told.given_up[lease["id"]] = problem


def all_at_once(work: list[Callable[[], None]], *, seconds: float = 120.0) -> list[BaseException | str]:
    """Does these things in threads; what they raised, and who did not come to an end."""
    problems: list[BaseException | str] = []
    gate = threading.Barrier(len(work))

    def one(what: Callable[[], None]) -> None:
        try:
            gate.wait(timeout=30)
            what()
        except BaseException as problem:  # the caller looks at it
            problems.append(problem)

    threads = [threading.Thread(target=one, args=(what,), daemon=True) for what in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=seconds)
        problems += ["not at an end"] if thread.is_alive() else []
    return problems


def check(told: Told, *, tasks: int) -> None:
    """What stands in the database is what was told, and no more of it than the overlap."""
    assert [one for one in told.given_up.values() if not isinstance(one, Disconnected)] == [], "nobody is told no"
    there = dict(Ranking.objects.values_list("id", "lease"))
    assert [pk for pk, times in Counter(told.saved).items() if times > 1] == [], "told twice"
    assert set(told.saved) - there.keys() == set(), "told, and lost"
    unknown = {str(lease) for pk, lease in there.items() if pk not in set(told.saved)}
    assert unknown - told.given_up.keys() == set(), "there, and nobody knows"
    leases = [lease for lease, times in Counter(there.values()).items() if times > 1]
    assert leases == [], "one answer twice"
    counted = RankingTask.objects.annotate(counted=Count("rankings", filter=Q(rankings__counted=True)))
    assert Counter(counted.values_list("counted", flat=True)) == {OVERLAP: tasks}
    assert Ranking.objects.count() == OVERLAP * tasks, "none beyond the overlap either"
    assert Counter(Slot.objects.values_list("state", flat=True)) == {"done": OVERLAP * tasks}
    assert Lease.objects.count() == OVERLAP * tasks, "no lease was handed out that nobody knew of"
