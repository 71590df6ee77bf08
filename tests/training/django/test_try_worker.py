"""Tries answered by a real worker: what comes in pieces is what was said."""

from collections.abc import Callable
from pathlib import Path

import pytest

from annotate.models import Project, Role
from tests.annotate.factories import make_project, make_user
from tests.training.django.helpers import ASKED
from tests.training.django.test_run_worker import Worker, home, same_folders, start_worker, wait_for
from training.models import Run
from training.selectors_tries import listed
from training.services.tries import Wish, start_try

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
__all__ = ["home", "same_folders", "start_worker"]  # fixtures


@pytest.fixture
def project(db: None) -> Project:
    return make_project()


def test_pieces_make_up_the_responses_and_the_next_try_follows(
    project: Project, start_worker: Callable[[str], Worker], home: Path
) -> None:
    alice = make_user(project=project, role=Role.MANAGER, engineer=True)
    wish = Wish(model="tiny", messages=ASKED, samples=2, max_response_length=24)
    first, second = (start_try(wish, project=project, started_by=alice) for _ in range(2))
    start_worker("gpu")
    for tried in (first, second):
        wait_for(tried.run, lambda run: run.is_finished)
        tried.refresh_from_db()
        assert tried.run.state == Run.State.SUCCEEDED, tried.run.reason
        assert tried.result is not None and len(tried.result["responses"]) == 2 and len(tried.result["seconds"]) == 1
        pieces = listed(tried.run, since=0).pieces
        assert len(pieces) > 2
        for row in tried.result["responses"]:
            said = "".join(piece.text for piece in pieces if (piece.model, piece.sample) == (0, row["sample"]))
            assert said == row["text"] and row["tokens"] <= 24
    assert first.run.started_at is not None and second.run.started_at is not None
    assert first.run.started_at < second.run.started_at
