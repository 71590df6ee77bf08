"""Trying models out: what may be asked, the place in line, what becomes of tries nobody looks at, page and API."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from annotate.errors import Conflict, Invalid
from annotate.models import Project, Prompt, RankingTask, Snapshot, SplitGroup
from annotate.preferences import normalise_split_text, split_for_group
from tests.training.django.helpers import (
    ASKED,
    RunCast,
    claim,
    finish_try,
    make_worker,
    queue_run,
    queue_try,
)
from training.models import ModelVersion, Run, Try
from training.runner.prepare import command_line, line_of_try
from training.runner.telling import Telling, result_of
from training.selectors_tries import get_try_for, line_of
from training.services.runs import cancel_run, resume_run
from training.services.tries import Wish, cancel_abandoned, forget_tries, move_to_cpu, start_try
from training.token_lists import key_of, pieces_since

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]

XSS = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LONG_AGO = "2001-01-01T00:00:00Z"


def client_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def user_says(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def page_of(tried: Try, rest: str = "") -> str:
    return f"/p/{tried.run.project.slug}/try/{tried.pk}/{rest}"


def given(**fields: Any) -> dict[str, Any]:
    """The form as a browser sends it."""
    usual = {"model": "tiny", "role": ["user"], "content": ["What is tea?"], "samples": 2, "temperature": "0.7"}
    return usual | {"max_response_length": 16} | fields


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_try_is_a_short_run_of_one_conversation(project: Project, people: RunCast, tmp_path: Path) -> None:
    reward = ModelVersion.objects.create(project=project, name="r", kind="reward", folder="r", size_bytes=1)
    messages = [{"role": "system", "content": "Be short."}, *ASKED]
    wish = Wish(model="tiny", model_2="owner/model", reward_model=f"registry:{reward.pk}", messages=messages, samples=2)
    tried = start_try(wish, project=project, started_by=people.alice)
    assert (tried.run.state, tried.run.kind, tried.run.snapshot) == ("queued", "sample", None)
    assert {one.role: one.name for one in tried.run.inputs.all()} == {
        "model_2": "owner/model", "reward_model": f"registry:{reward.pk}",
    }  # fmt: skip
    line = json.loads(line_of_try(tried))
    assert line["prompt"] == messages and line["type"] == "prompt"
    command = command_line(tried.run, model="m", data=tmp_path / "d", inputs={"model_2": "n"}, stream=True)
    assert "--stream" in command and "--samples-per-prompt=2" in command and "--model=n" in command
    other = start_try(Wish(model="tiny", messages=ASKED), project=project, started_by=people.alice)
    assert other.run.config["seed"] != tried.run.config["seed"]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"messages": []}, "messages", "Write a prompt"),
        ({"messages": user_says(" \n")}, "messages", "Write a prompt"),
        ({"messages": user_says("x" * 100_001)}, "messages", "Too long"),
        ({"messages": user_says("a\0b")}, "messages", "a character that is none"),
        ({"messages": user_says("a\ud800b")}, "messages", "a character that is none"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "It is"}]}, "messages", "must be the user's"),
        ({"messages": [*ASKED, {"role": "system", "content": "x"}, *ASKED]}, "messages", "Only the first"),
        ({"messages": [{"role": "tool", "content": "x"}, *ASKED]}, "messages", "role"),
        ({"model": "no-such"}, "model", "There is no model folder no-such"),
        ({"model": "registry:999"}, "model", "no such model in the registry"),
        ({"model": "../../etc"}, "model", "Name a built-in model"),
        ({"model_2": "tiny"}, "model_2", "sampled already"),
        ({"reward_model": "tiny"}, "reward_model", "reward model is needed"),
        ({"samples": 5}, "samples", "At most 4"),
        ({"max_response_length": 2049}, "max_response_length", "At most 2048"),
        ({"temperature": 0}, "temperature", "more than 0"),
    ],
)
def test_what_cannot_be_tried_is_said_at_its_field(
    project: Project, people: RunCast, change: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        start_try(Wish(**{"model": "tiny", "messages": ASKED, **change}), project=project, started_by=people.alice)
    assert list(refusal.value.fields) == [field] and words in refusal.value.fields[field]
    assert not Run.objects.exists()


def test_a_model_that_is_still_to_be_made_and_a_fourth_waiting_try_are_refused(
    snapshot: Snapshot, people: RunCast
) -> None:
    maker = queue_run(snapshot, kind="sft")
    with pytest.raises(Invalid) as refusal:
        start_try(Wish(model=f"run:{maker.pk}", messages=ASKED), project=snapshot.project, started_by=people.alice)
    assert "has not succeeded yet" in refusal.value.fields["model"]
    for _ in range(3):
        start_try(Wish(model="tiny", messages=ASKED), project=snapshot.project, started_by=people.alice)
    with pytest.raises(Conflict, match="3 of your tries"):
        start_try(Wish(model="tiny", messages=ASKED), project=snapshot.project, started_by=people.alice)
    start_try(Wish(model="tiny", messages=ASKED), project=snapshot.project, started_by=people.sue)


# --- the place in line ------------------------------------------------------------------------------------------------


def test_the_page_says_who_holds_the_worker_and_offers_the_cpu(snapshot: Snapshot, people: RunCast) -> None:
    holder = queue_run(snapshot, started_by=people.alice)
    make_worker("gpu", name="gpu@a")
    claim(worker="gpu@a")
    first, tried = queue_try(snapshot.project), queue_try(snapshot.project)
    line = line_of(tried, user=people.alice)
    assert line is not None and (line.queue, line.place, line.cpu) == ("gpu", 2, False)
    assert [(one.worker, one.held and one.held.run) for one in line.workers] == [("gpu@a", holder)]
    client = client_of(people.alice)
    html = client.get(page_of(tried)).content.decode()
    assert "number 2 in line" in html and f"run {holder.pk}" in html and people.alice.username in html
    assert "On the CPU instead" not in html
    client.post(page_of(tried, "cpu/"))
    assert Run.objects.get(pk=tried.pk).queue == "gpu"
    make_worker("cpu")
    assert "On the CPU instead" in client.get(page_of(tried)).content.decode()
    client.post(page_of(tried, "cpu/"))
    tried.run.refresh_from_db()
    assert tried.run.queue == "cpu" and "next in line" in client.get(page_of(tried)).content.decode()
    assert claim(queues=("cpu",)).run_id == tried.pk and claim().run_id == first.pk
    with pytest.raises(Conflict, match="waits no more"):
        move_to_cpu(tried)


def test_of_a_run_of_another_project_nothing_is_said_but_that_it_is_there(snapshot: Snapshot, people: RunCast) -> None:
    other = queue_run(snapshot, started_by=people.alice, name="secret run")
    make_worker("gpu", name="gpu@a")
    claim(worker="gpu@a")
    tried = queue_try(Project.objects.get(memberships__user=people.charlie))
    html = client_of(people.charlie).get(page_of(tried)).content.decode()
    assert "a run of another project" in html
    assert "secret" not in html and f"run {other.pk}" not in html and people.alice.username not in html


def test_with_workers_of_processors_alone_a_try_goes_to_them(project: Project, people: RunCast) -> None:
    make_worker("cpu")
    assert start_try(Wish(model="tiny", messages=ASKED), project=project, started_by=people.alice).run.queue == "cpu"
    make_worker("gpu")
    assert start_try(Wish(model="tiny", messages=ASKED), project=project, started_by=people.alice).run.queue == "gpu"


def test_a_try_waits_where_this_server_has_a_queue(project: Project, people: RunCast, settings: Any) -> None:
    settings.RUN_QUEUES = ["large", "cpu"]
    assert start_try(Wish(model="tiny", messages=ASKED), project=project, started_by=people.alice).run.queue == "large"


# --- nobody looks, or it is over --------------------------------------------------------------------------------------


def test_a_waiting_try_that_nobody_looks_at_is_cancelled_and_others_stay(project: Project, people: RunCast) -> None:
    left, watched, working = queue_try(project), queue_try(project), queue_try(project)
    while claim().run_id != working.pk:
        Run.objects.filter(state="starting").update(state="queued", lease_expires_at=None, queued_at=Now())
    Try.objects.update(seen_at=LONG_AGO)
    assert client_of(people.alice).get(page_of(watched, "live/")).status_code == 200
    assert cancel_abandoned() == 1
    states = dict(Run.objects.values_list("pk", "state"))
    assert states == {left.pk: "cancelled", watched.pk: "queued", working.pk: "starting"}
    assert "Nobody looked" in Run.objects.get(pk=left.pk).reason
    with pytest.raises(Conflict, match="begin another"):
        resume_run(Run.objects.get(pk=left.pk))


def test_a_week_after_its_end_a_try_goes_with_its_files(project: Project, people: RunCast) -> None:
    old, young, waiting = queue_try(project), queue_try(project), queue_try(project)
    for tried in (old, young):
        (tried.run.folder / "out").mkdir(parents=True)
        finish_try(tried, ["a", "b"])
    Run.objects.filter(pk=old.pk).update(finished_at=LONG_AGO)
    client_of(people.alice).post(page_of(young, "send/"))
    assert forget_tries() == 1
    assert set(Run.objects.values_list("pk", flat=True)) == {young.pk, waiting.pk}
    assert not old.run.folder.exists() and young.run.folder.exists()
    assert client_of(people.alice).get(page_of(old)).status_code == 404


def test_tries_do_not_clutter_the_list_of_runs(snapshot: Snapshot, people: RunCast) -> None:
    queue_run(snapshot, name="a real run"), queue_try(snapshot.project, name="only tried")
    client = client_of(people.alice)
    runs, tries = client.get("/runs/").content.decode(), client.get("/runs/?tries=1").content.decode()
    assert "a real run" in runs and "only tried" not in runs
    assert "a real run" not in tries and "only tried" in tries
    assert [row["name"] for row in client.get("/api/v1/runs/").json()["results"]] == ["a real run"]
    assert [row["name"] for row in client.get("/api/v1/runs/?tries=true").json()["results"]] == ["only tried"]


# --- from the recipe's file to the page -------------------------------------------------------------------------------


def piece(sample: int, position: int, text: str) -> str:
    row = {"step": 1, "model_index": 0, "prompt": 0, "sample": sample, "position": position, "text": text}
    return json.dumps(row) + "\n"


def test_pieces_come_once_in_order_also_after_the_trainer_began_again(project: Project, tmp_path: Path) -> None:
    tried, file = queue_try(project), tmp_path / "tokens.jsonl"
    telling = Telling(tried.run, attempt=1, output=tmp_path)
    key = key_of(tried.pk, 1, tried.run.created_at)
    telling.forward()
    file.write_text(piece(0, 0, "He") + piece(1, 0, "A") + piece(0, 1, "llo"))
    telling.forward()
    first = pieces_since(key, 0)
    assert [(one.sample, one.text) for one in first.pieces] == [(0, "He"), (1, "A"), (0, "llo")]
    file.write_text(piece(0, 0, "He"))  # an unfinished step was cut off, and is said again
    telling.forward()
    file.write_text(piece(0, 0, "He") + piece(1, 0, "A") + piece(0, 1, "llo") + piece(0, 1, "\ufffd") + "not json\n")
    telling.forward()
    more = pieces_since(key, first.next)
    assert ([one.text for one in more.pieces], more.next, more.gap) == (["\ufffd"], 4, False)
    assert pieces_since(key, 4).pieces == () and pieces_since(key, 2).next == 4


def test_text_that_redis_lost_is_a_gap_and_a_dead_redis_disturbs_nobody(
    project: Project, people: RunCast, tmp_path: Path, settings: Any
) -> None:
    from training import token_lists

    tried, file = queue_try(project), tmp_path / "tokens.jsonl"
    telling, key = Telling(tried.run, attempt=1, output=tmp_path), key_of(tried.pk, 1, tried.run.created_at)
    file.write_text(piece(0, 0, "a") + piece(0, 1, "b"))
    telling.forward()
    token_lists._client(settings.REDIS_URL).delete(key)
    file.write_text(file.read_text() + piece(0, 2, "c"))
    telling.forward()
    found = pieces_since(key, 1)
    assert ([one.text for one in found.pieces], found.next, found.gap) == (["c"], 3, True)
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    file.write_text(file.read_text() + piece(0, 3, "d"))
    telling.forward()
    client = client_of(people.alice)
    assert client.get(page_of(tried)).status_code == 200
    assert client.get(page_of(tried, "pieces/?since=3")).json()["pieces"] == []
    finish_try(tried, ["whole"])
    assert "whole" in client.get(page_of(tried)).content.decode()


def test_the_page_shows_what_is_written_so_far_with_thinking_apart(
    project: Project, people: RunCast, tmp_path: Path
) -> None:
    tried = queue_try(project)
    claim()
    tried.run.refresh_from_db()
    telling = Telling(tried.run, attempt=1, output=tmp_path)
    text = piece(0, 0, "<think>I muse") + piece(0, 1, "</think>\n\n") + piece(0, 2, XSS) + piece(1, 0, "Aye")
    (tmp_path / "tokens.jsonl").write_text(text)
    telling.forward()
    client = client_of(people.alice)
    html = client.get(page_of(tried)).content.decode()
    assert "data-thinking>I muse</p>" in html and "&lt;script&gt;alert(1)" in html and XSS not in html
    assert 'data-since="4"' in html and 'aria-busy="true"' in html
    told = client.get(page_of(tried, "pieces/?since=3")).json()
    assert told == {"attempt": 1, "next": 4, "pieces": [[0, 1, "Aye"]], "over": False}
    assert client.get(page_of(tried, "pieces/?since=x")).json()["next"] == 4
    seen = html.partition("?seen=")[2].partition('"')[0]
    assert client.get(page_of(tried, f"live/?seen={seen}")).status_code == 204


def test_what_is_stored_is_what_the_recipe_wrote(tmp_path: Path) -> None:
    row = {"step": 1, "model_index": 0, "sample": 0, "text": "a\0", "thinking": None, "ended": True, "tokens": 2,
           "token_ids": [1, 2], "score": None}  # fmt: skip
    assert result_of(tmp_path) is None
    (tmp_path / "responses.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time/sample_seconds": 0.5}\n')
    found = result_of(tmp_path)
    assert found is not None and found["seconds"] == [0.5]
    assert found["responses"][0]["text"] == "a\ufffd" and "token_ids" not in found["responses"][0]


# --- the end, and sending ---------------------------------------------------------------------------------------------


def test_the_end_has_scores_and_one_press_makes_one_ranking_task(project: Project, people: RunCast) -> None:
    tried = queue_try(project, messages=user_says(XSS))
    finish_try(tried, ["a <b>drink</b>", "leaves"], thinking="hm")
    client = client_of(people.alice)
    html = client.get(page_of(tried)).content.decode()
    assert "a &lt;b&gt;drink&lt;/b&gt;" in html and XSS not in html and "data-pieces" not in html
    assert "<b>1.5</b>" in html and "ended by itself" in html and "1.5 s" in html and "Send to annotators" in html
    assert 'data-end="All responses are there."' in html
    html = client.post(page_of(tried, "send/"), follow=True).content.decode()
    assert "1 ranking task was made." in html and "Sent to annotators" in html
    task = RankingTask.objects.get()
    assert task.prompt.messages == user_says(XSS)
    group = normalise_split_text(user_says(XSS))
    assert (task.prompt.split_group.key, task.prompt.split_group.split) == ("", split_for_group(group))
    assert set(task.prompt.responses.values_list("text", "thinking", "model")) == {
        ("a <b>drink</b>", "hm", "tiny"), ("leaves", "hm", "tiny"),
    }  # fmt: skip
    assert "sent before" in client.post(page_of(tried, "send/"), follow=True).content.decode()


def test_equal_responses_make_no_task_and_the_page_says_why(project: Project, people: RunCast) -> None:
    tried = queue_try(project)
    finish_try(tried, ["same", "same"], thinking=None)
    html = client_of(people.alice).post(page_of(tried, "send/"), follow=True).content.decode()
    assert "fewer than two different responses" in html and not RankingTask.objects.exists()


def test_a_prompt_of_the_project_keeps_its_split_group_as_long_as_it_is_the_same(
    project: Project, people: RunCast
) -> None:
    group = SplitGroup.objects.create(project=project, key="a topic", key_sha256="0" * 64, split="test")
    prompt = Prompt.objects.create(project=project, messages=ASKED, split_group=group, content_sha256="1" * 64)
    client, address = client_of(people.alice), f"/p/{project.slug}/try/"
    html = client.post(address, given(do="take", of_project=prompt.pk)).content.decode()
    said = prompt.messages[-1]["content"]
    assert f"{said}</textarea>" in html and f'name="prompt" value="{prompt.pk}"' in html
    turns = {"role": [one["role"] for one in prompt.messages], "content": [one["content"] for one in prompt.messages]}
    client.post(address, given(prompt=prompt.pk, **turns))
    client.post(address, given(prompt=prompt.pk, **turns | {"content": ["another"] * len(turns["role"])}))
    assert list(Try.objects.order_by("pk").values_list("split_group", flat=True)) == ["a topic", None]


# --- form and API -----------------------------------------------------------------------------------------------------


def test_the_form_starts_a_try_and_keeps_what_was_wrong(project: Project, people: RunCast) -> None:
    client, address = client_of(people.alice), f"/p/{project.slug}/try/"
    answer = client.post(address, given(content=[" "]))
    assert answer.status_code == 422 and "Write a prompt." in answer.content.decode()
    answer = client.post(address, given(content=["y" * 100_001]))
    assert answer.status_code == 422 and "Too long" in answer.content.decode()
    answer = client.post(address, given(content=[XSS], model="hub", hub_model="no hub id"))
    html = answer.content.decode()
    assert (
        answer.status_code == 422 and "Name a built-in model" in html and "&lt;script&gt;" in html and XSS not in html
    )
    html = client.post(address, given(do="more", samples=3)).content.decode()
    assert html.count("<textarea") == 2 and '<option value="3" selected>' in html
    answer = client.post(address, given(role=["system", "user"], content=["", "Tea?"], shows_thinking="on"))
    assert answer.status_code == 302, answer.content.decode()
    tried = Try.objects.get()
    assert tried.messages == user_says("Tea?") and tried.shows_thinking
    assert tried.run.config["temperature"] == 0.7 and tried.run.config["samples_per_prompt"] == 2
    again = client.get(f"{address}?from={tried.pk}").content.decode()
    assert "Tea?</textarea>" in again and 'value="16"' in again
    assert client.get(f"{address}?model=tiny&from=x").status_code == 200


def test_a_failed_try_says_what_to_do(project: Project, people: RunCast) -> None:
    tried = queue_try(project)
    claim()
    reason = "data has no prompt to answer in train / validation / test: 1 lines, dropped 1 too_long"
    Run.objects.filter(pk=tried.pk).update(state="failed", reason=reason, finished_at=Now(), lease_expires_at=None)
    html = client_of(people.alice).get(page_of(tried)).content.decode()
    assert "The conversation is too long for a model" in html and "64 tokens" in html and "too_long" not in html
    assert client_of(people.alice).get(f"/runs/{tried.pk}/").status_code == 200


def test_the_api_tries_and_tells(snapshot: Snapshot, people: RunCast) -> None:
    address = f"/api/v1/projects/{snapshot.project.slug}/tries/"
    client, body = client_of(people.alice), {"model": "tiny", "messages": ASKED, "samples": 2, "seed": 5}
    answer = client.post(address, body, content_type="application/json", headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201, answer.content
    told = answer.json()
    again = client.post(address, body, content_type="application/json", headers={"Idempotency-Key": "k"})
    assert again.json()["id"] == told["id"] and Run.objects.get().config["seed"] == 5
    assert told["models"] == ["tiny"] and told["responses"] is None
    assert told["line"] == {"queue": "gpu", "place": 1, "workers": [], "cpu": False}
    tried = get_try_for(people.alice, snapshot.project.slug, told["id"])
    finish_try(tried, ["a", "b"])
    told = client.get(f"{address}{tried.pk}/?since=7").json()
    assert (told["state"], told["line"], told["pieces"], told["next"]) == ("succeeded", None, [], 7)
    assert [(one["text"], one["ended"], one["score"]) for one in told["responses"]] == [
        ("a", True, 0.5),
        ("b", True, 1.5),
    ]
    wrong = client.post(address, body | {"messages": [], "model": "no-such"}, content_type="application/json")
    assert wrong.status_code == 422 and set(wrong.json()["error"]["fields"]) == {"messages", "model"}
    assert client.get(f"{address}{tried.pk}/?since=x").status_code == 400
    assert client.post(f"{address}{tried.pk}/cpu/").status_code == 409


def test_other_peoples_projects_have_no_tries(project: Project, people: RunCast) -> None:
    tried = queue_try(project)
    elsewhere = Project.objects.get(memberships__user=people.charlie)
    api = f"/api/v1/projects/{project.slug}/tries/"
    for user, status in ((people.charlie, 404), (people.bob, 403)):
        client = client_of(user)
        for address in (f"/p/{project.slug}/try/", page_of(tried), page_of(tried, "live/"), page_of(tried, "pieces/"),
                        f"{api}{tried.pk}/"):  # fmt: skip
            assert client.get(address).status_code == status, address
        for address in (f"/p/{project.slug}/try/", page_of(tried, "cpu/"), page_of(tried, "cancel/"),
                        page_of(tried, "send/"), f"{api}{tried.pk}/cpu/"):  # fmt: skip
            assert client.post(address).status_code == status, address
        body = {"model": "tiny", "messages": ASKED}
        assert client.post(api, body, content_type="application/json").status_code == status
    # A try is found in its own project alone, and a run that is none is no try.
    mine = client_of(people.charlie)
    assert mine.get(f"/p/{elsewhere.slug}/try/{tried.pk}/").status_code == 404
    assert mine.get(f"/p/{elsewhere.slug}/try/?from={tried.pk}").status_code == 404
    assert Client().get(f"{api}{tried.pk}/").status_code == 401
    assert cancel_run(tried.run).state == "cancelled"
