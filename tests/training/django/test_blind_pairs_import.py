"""The file of blind pairs that a run writes is one that the importer takes, as tasks to be ranked."""

import json
from pathlib import Path

import pytest
from django.core.management import call_command

from annotate.models import Ranking, RankingTask, Response, Slot
from annotate.services.queue import next_leases
from tests.annotate.factories import make_project, make_user
from training.core.blind_pairs import KEY_NAME, PAIRS_NAME, BlindPair, write_blind_pairs
from training.core.line_parts import Message

pytestmark = pytest.mark.django_db


def test_the_file_becomes_tasks_that_say_nothing_of_who_wrote_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Tell me of tea."))
    pairs = [
        BlindPair((Message("user", f"What is {number}?"),), "validation", f"g{number}", f"{number}!", f"{number} is…")
        for number in range(3)
    ] + [BlindPair(conversation, "test", "tea", "", "A drink.\n")]
    write_blind_pairs(tmp_path, pairs, seed=1, makers={"trained": "secret-policy"})
    project = make_project("tea", overlap=2)
    arguments = ["import_data", "--project", "tea", "--format", "plackett", str(tmp_path / PAIRS_NAME)]
    call_command(*arguments)
    assert "4 read, 4 written, 0 unchanged, 0 conflicts, 0 skipped" in capsys.readouterr().out
    tasks = RankingTask.objects.filter(prompt__project=project)
    assert tasks.count() == 4 and not Ranking.objects.exists()
    assert Slot.objects.filter(project=project).count() == 8
    key = json.loads((tmp_path / KEY_NAME).read_text())
    for task in tasks.select_related("prompt"):
        assert set(key["pairs"][task.prompt.external_id].values()) == {"trained", "start"}
    assert {response.model for response in Response.objects.all()} == {""}
    leased = next_leases(project=project, annotator=make_user(project=project), count=2)
    assert len(leased) == 2, "people can begin"
    # The key names the policy; the pairs do not.
    assert "secret-policy" not in (tmp_path / PAIRS_NAME).read_text()
    call_command(*arguments)
    assert "0 written, 4 unchanged" in capsys.readouterr().out
