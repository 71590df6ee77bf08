"""The reward recipe as a process: what it writes, what it refuses, and that stopping it anywhere changes no result."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.training.conftest import StartRecipe, flags_from, run_as_main
from tests.training.snapshots import record, records, write_jsonl
from training.core.distributed import World
from training.core.encoding import Rules, encode_snapshot
from training.core.halving import MicroBatchBudget
from training.core.modeling import load_reward_model
from training.core.records import read_rankings
from training.core.scoring import Layout, score_dataset
from training.core.tokens import ChatEncoder

RunRecipe = Callable[..., int]
ROOT = Path(__file__).resolve().parents[3]
WAIT_SECONDS = 120


def json_of(path: Path) -> Any:
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line, parse_constant=pytest.fail) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def results_of(folder: Path) -> list[tuple[Any, ...]]:
    """What training computed, step by step, without times and attempts."""
    names = ("step", "train/loss", "train/grad_norm", "train/learning_rate", "train/skipped_steps")
    return [tuple(row[name] for name in names) for row in metrics_of(folder)]


def assert_same_run(folder: Path, expected: Path) -> None:
    """Tensor-equal weights, equal figures, every step exactly once."""
    assert results_of(folder) == results_of(expected)
    assert [row["step"] for row in metrics_of(folder)] == list(range(1, len(metrics_of(folder)) + 1))
    first, second = weights_of(folder), weights_of(expected)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json_of(folder / "report.json") == json_of(expected / "report.json")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="session")
def raw_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with pad = eos = what every turn ends with, as the raw SmolLM2 file has it."""
    folder = tmp_path_factory.mktemp("raw") / "model"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


def short_run(model: Path, folder: Path) -> dict[str, Any]:
    """The flags of a run of 24 short steps."""
    data = write_jsonl(folder / "data.jsonl", records(train=16, validation=6))
    return {
        "model": model, "data": data, "output": folder / "out", "learning_rate": 1e-3, "batch_size": 4,
        "epochs": 6, "checkpoint_every": 2, "micro_batch_tokens": 300, "device": "cpu",
    }  # fmt: skip


@pytest.fixture
def flags(raw_model: Path, tmp_path: Path) -> dict[str, Any]:
    """The short run, about to start."""
    return short_run(raw_model, tmp_path)


@pytest.fixture(scope="module")
def straight_run(raw_model: Path, tmp_path_factory: pytest.TempPathFactory, fork_server: Any) -> Path:
    """The folder of the short run without interruption, by a process of its own."""
    folder = tmp_path_factory.mktemp("straight")
    arguments = flags_from(short_run(raw_model, folder))
    process = fork_server.Process(target=run_as_main, args=(arguments, {}, str(folder / "stderr.txt")))
    process.start()
    process.join()
    assert process.exitcode == 0
    return folder / "out"


@pytest.fixture
def straight(straight_run: Path, tmp_path: Path) -> Path:
    """A copy of that folder for one test."""
    return Path(shutil.copytree(straight_run, tmp_path / "straight"))


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_the_files_of_the_contract(
    flags: dict[str, Any], run_recipe: RunRecipe, tmp_path: Path
) -> None:
    data = write_jsonl(
        tmp_path / "more.jsonl", [*records(train=40, validation=12, test=3), record(99, split="train", kind="gold")]
    )
    out = flags["output"]
    assert run_recipe(**flags | {"data": data, "epochs": 5}) == 0
    assert json_of(out / "exit.json") | {"exited_at": ""} == {
        "code": 0, "step": 50, "exited_at": "", "reason": json_of(out / "exit.json")["reason"],
    }  # fmt: skip

    report = json_of(out / "report.json")
    assert (report["kind"], report["steps"]) == ("reward", 50)
    assert report["counts"]["read"] == 56 == report["counts"]["used"] + sum(report["counts"]["dropped"].values())
    assert report["counts"]["dropped"] == {"gold": 1, "test_split": 3}
    accuracy, length = report["validation"]["accuracy"], report["validation"]["length_baseline"]
    assert accuracy.keys() == length.keys() == {"value", "low", "high", "pairs", "prompts"}
    assert (accuracy["pairs"], accuracy["prompts"]) == (40, 12)
    assert accuracy["value"] > 0.9 > length["value"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert {"log_loss", "ece", "temperature", "kendall_tau_b"} <= report["validation"].keys()
    assert "test" not in report

    rows = metrics_of(out)
    assert [row["step"] for row in rows] == list(range(1, 51))
    assert all(row["attempt"] == 1 and row["train/skipped_steps"] == 0 for row in rows)
    assert sum(row["train/loss"] for row in rows[-10:]) < 0.5 * sum(row["train/loss"] for row in rows[:10])
    assert [row["step"] for row in rows if "validation/accuracy" in row] == [10, 20, 30, 40, 50]
    assert rows[-1]["validation/accuracy"] == accuracy["value"]

    run = json_of(out / "run.json")
    assert run["config"]["batch_size"] == 4
    assert run["data_sha256"] == read_rankings(data).sha256
    assert [attempt["from_step"] for attempt in run["attempts"]] == [0]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-48", "step-50"]
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".tmp")]
    card = (out / "model" / "README.md").read_text()
    assert f"{accuracy['value']:.3f}" in card
    assert str(out) not in card


PLAIN_SCRIPT = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
found = {"pad": [tokenizer.pad_token_id, model.config.pad_token_id], "labels": model.config.num_labels}
with torch.no_grad():
    def encode(messages, **options):
        return tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True, **options)
    found["alone"] = [model(**encode(messages)).logits[0, 0].item() for messages in texts]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        found[side] = model(**encode(texts, padding=True)).logits[:, 0].tolist()
found["plackett"] = [name for name in sys.modules if name.split(".")[0] in ("training", "annotate", "webapp", "peft")]
print(json.dumps(found))
"""


def plain_scores(folder: Path, texts: list[Any], *, elsewhere: Path) -> dict[str, Any]:
    """What plain transformers says in a fresh process that cannot import Plackett."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    output = subprocess.run(
        [sys.executable, "-c", PLAIN_SCRIPT, str(folder), json.dumps(texts)],
        cwd=elsewhere, env=environment, stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def our_scores(folder: Path, data: Path) -> tuple[list[Any], list[float]]:
    """The conversations of the training split and our packed scores for them, with the saved folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = load_reward_model(str(folder), seed=99, device=torch.device("cpu"), autocast_dtype=torch.float32)
    snapshot, rules = read_rankings(data), Rules(("train",), max_length=500)
    encoded = encode_snapshot(snapshot, ChatEncoder(tokenizer), rules, roots=[folder.parent / "cache"])
    layout = Layout(True, tokenizer.pad_token_id)
    budget = MicroBatchBudget(10**6, 10**6, World(), torch.device("cpu"))
    scores = score_dataset(model, encoded.splits["train"], layout, budget=budget)
    assert scores is not None
    texts = [
        [
            *({"role": m.role, "content": m.content} for m in ranking.prompt),
            {"role": "assistant", "content": ranking.responses[place].text},
        ]
        for ranking in snapshot.rankings()
        if ranking.split == "train"
        for tier in ranking.tiers
        for place in tier
    ]
    assert len(texts) == sum(map(len, scores))
    return texts, [score for row in scores for score in row]


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_model_gives_the_same_scores_where_nobody_knows_plackett(
    flags: dict[str, Any], run_recipe: RunRecipe, tmp_path: Path, lora_rank: int
) -> None:
    assert run_recipe(**flags | {"lora_rank": lora_rank, "epochs": 2}) == 0
    folder = flags["output"] / "model"
    texts, ours = our_scores(folder, flags["data"])
    found = plain_scores(folder, texts, elsewhere=tmp_path)
    assert found["plackett"] == []
    assert found["labels"] == 1
    assert found["pad"] == [258, 258]  # not the raw 257, with which every text ends
    assert max(ours) - min(ours) > 0.1
    for way in ("alone", "left", "right"):
        assert found[way] == pytest.approx(ours, abs=1e-4), way
    if lora_rank:
        assert_adapter_scores_alike(flags, texts, ours)
    assert (flags["output"] / "adapter").exists() == bool(lora_rank)


def assert_adapter_scores_alike(flags: dict[str, Any], texts: list[Any], ours: list[float]) -> None:
    """The adapter on the base model, head included, is the merged model."""
    base = AutoModelForSequenceClassification.from_pretrained(flags["model"], num_labels=1)
    model = PeftModel.from_pretrained(base, flags["output"] / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(flags["output"] / "adapter")
    with torch.no_grad():
        scores = [
            model(**tokenizer.apply_chat_template(text, return_tensors="pt", return_dict=True)).logits[0, 0].item()
            for text in texts
        ]
    assert scores == pytest.approx(ours, abs=1e-4)


# --- stopping and going on --------------------------------------------------------------------------------------------


def test_kill_minus_nine_and_resume_is_the_same_run(
    flags: dict[str, Any], straight: Path, start_recipe: StartRecipe, run_recipe: RunRecipe, tmp_path: Path
) -> None:
    """From its last checkpoint; or from the beginning, where it is killed before there is one."""
    out = flags["output"]
    process = start_recipe(**flags)
    wait_for(lambda: (out / "checkpoints" / "step-6").exists())
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "model").exists()
    assert not (out / "exit.json").exists()
    without = Path(shutil.copytree(out, tmp_path / "without"))
    shutil.rmtree(without / "checkpoints")

    assert run_recipe(**flags, resume=True) == 0
    assert_same_run(out, straight)
    attempts = json_of(out / "run.json")["attempts"]
    assert [attempt["number"] for attempt in attempts] == [1, 2]
    begin = attempts[1]["from_step"]
    assert begin >= 6
    assert [row["attempt"] for row in metrics_of(out)] == [1] * begin + [2] * (24 - begin)

    assert run_recipe(**flags | {"output": without}, resume=True) == 0
    assert json_of(without / "run.json")["attempts"][1]["from_step"] == 0
    assert [row["attempt"] for row in metrics_of(without)] == [2] * 24
    assert_same_run(without, straight)


def test_sigterm_finishes_the_step_and_saves_it(
    flags: dict[str, Any], straight: Path, start_recipe: StartRecipe, run_recipe: RunRecipe
) -> None:
    out = flags["output"]
    process = start_recipe(**flags | {"checkpoint_every": 1000})
    wait_for(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size > 0)
    process.terminate()
    process.join()
    assert process.exitcode == 143
    told = json_of(out / "exit.json")
    assert (told["code"], "SIGTERM" in told["reason"]) == (143, True)
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{told['step']}"]
    assert run_recipe(**flags, resume=True) == 0
    assert json_of(out / "run.json")["attempts"][1]["from_step"] == told["step"]
    assert_same_run(out, straight)


def test_stop_after_leaves_the_schedule_alone(flags: dict[str, Any], straight: Path, run_recipe: RunRecipe) -> None:
    out = flags["output"]
    assert run_recipe(**flags, stop_after=3) == 0
    assert json_of(out / "exit.json")["step"] == 3
    assert not (out / "model").exists()
    assert [path.name for path in (out / "checkpoints").iterdir() if path.name != "step-2"] == ["step-3"]
    assert run_recipe(**flags, stop_after=5, resume=True) == 0
    assert run_recipe(**flags, resume=True) == 0
    assert_same_run(out, straight)


def test_a_harmed_checkpoint_is_passed_over_for_the_older(
    flags: dict[str, Any], straight: Path, run_recipe: RunRecipe
) -> None:
    out = flags["output"]
    assert run_recipe(**flags, stop_after=5) == 0
    path = out / "checkpoints" / "step-5" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert run_recipe(**flags, resume=True) == 0
    assert json_of(out / "run.json")["attempts"][1]["from_step"] == 4
    assert_same_run(out, straight)


def test_the_end_of_the_lifeline_stops_it_and_without_the_variable_stdin_means_nothing(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "training.recipes.reward", *flags_from(flags | {"epochs": 10**5})]
    environment = os.environ | {"PLACKETT_LIFELINE": "stdin", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (flags["output"] / "metrics.jsonl").exists())
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(WAIT_SECONDS) == 143
    finally:
        process.kill()
        process.wait()
    assert "lifeline" in json_of(flags["output"] / "exit.json")["reason"]
    # Without the variable stdin is already at its end here, as in every other test of this file.


# --- what it refuses --------------------------------------------------------------------------------------------------


def refusal(flags: dict[str, Any]) -> str:
    told = json_of(flags["output"] / "exit.json")
    assert told["code"] == 2
    assert "\n" not in told["reason"]
    return str(told["reason"])


def files_in(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ties": "elo"}, "--ties must be one of skip, soft, rao-kupper, davidson"),
        ({"loss": "plackett-luce", "ties": "rao-kupper"}, "with --loss plackett-luce choose davidson, soft or skip"),
        ({"loss": "plackett-luce", "strength": "margin"}, "--strength must be ignore with --loss plackett-luce"),
        ({"strength": "ordinal", "ties": "davidson"}, "--ties must be rao-kupper or skip with --strength ordinal"),
        ({"ensemble": 65}, "--ensemble must be at most 64"),
        ({"learning_rate": "fast"}, "--learning-rate must be a finite number"),
        ({"surprise": 1}, "--surprise=1"),
        ({"data": "absent.jsonl"}, "absent.jsonl"),
        ({"model": "/absent"}, "there is no folder /absent"),
        ({"max_length": 8}, "no ranking to train on"),
    ],
)
def test_bad_arguments_are_exit_two_in_one_line_and_can_be_mended(
    flags: dict[str, Any], run_recipe: RunRecipe, changes: dict[str, Any], words: str
) -> None:
    assert run_recipe(**flags | changes) == 2
    assert words in refusal(flags)
    if "ties" in changes:  # the folder is still free to start in
        assert run_recipe(**flags | {"max_steps": 1}) == 0


def test_a_bad_line_is_named(flags: dict[str, Any], run_recipe: RunRecipe) -> None:
    lines = records(train=3)
    del lines[1]["split"]
    write_jsonl(flags["data"], lines)
    assert run_recipe(**flags) == 2
    assert "data.jsonl line 2: no split" in refusal(flags)


def test_a_conversation_that_the_template_refuses_is_named_by_its_line(
    flags: dict[str, Any], run_recipe: RunRecipe, raw_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(raw_model, tmp_path / "fussy"))
    fussy = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(fussy + (folder / "chat_template.jinja").read_text())
    lines = records(train=3)
    lines[2]["prompt"].insert(0, {"role": "system", "content": "Be brief."})
    write_jsonl(flags["data"], lines)
    assert run_recipe(**flags | {"model": folder}) == 2
    assert refusal(flags).startswith("line 3: chat template: it refuses the roles system, user (no system)")


def test_a_folder_with_something_in_it_is_left_alone(
    flags: dict[str, Any], run_recipe: RunRecipe, tmp_path: Path
) -> None:
    flags["output"].mkdir()
    (flags["output"] / "thesis.txt").write_text("mine")
    for resume in (False, True):
        assert run_recipe(**flags, resume=resume) == 2
        assert [path.name for path in flags["output"].iterdir()] == ["thesis.txt"]
        assert str(flags["output"]) in (tmp_path / "stderr.txt").read_text()


def test_a_resume_with_other_flags_or_data_names_the_difference(flags: dict[str, Any], run_recipe: RunRecipe) -> None:
    assert run_recipe(**flags, stop_after=2) == 0
    assert run_recipe(**flags | {"batch_size": 8, "seed": 1}, resume=True) == 2
    assert "--seed was 0, is 1; --batch-size was 4, is 8" in refusal(flags)
    assert run_recipe(**flags) == 2  # without --resume the folder is not empty
    write_jsonl(flags["data"], records(train=15))
    assert run_recipe(**flags, resume=True) == 2
    assert "--data has the sha256" in refusal(flags)


def test_where_the_data_lies_and_how_memory_is_used_may_change(
    flags: dict[str, Any], straight: Path, run_recipe: RunRecipe, tmp_path: Path
) -> None:
    assert run_recipe(**flags, stop_after=2) == 0
    moved = {"data": flags["data"].rename(tmp_path / "moved.jsonl"), "model": tmp_path / "base"}
    shutil.copytree(flags["model"], moved["model"])
    assert run_recipe(**flags | moved | {"micro_batch_tokens": 10**5, "checkpoint_every": 7}, resume=True) == 0
    for row, expected in zip(results_of(flags["output"]), results_of(straight), strict=True):
        assert row == pytest.approx(expected, rel=1e-3)  # other micro-batches round otherwise


def test_a_finished_run_is_left_as_it_is(flags: dict[str, Any], straight: Path, run_recipe: RunRecipe) -> None:
    before = files_in(straight)
    assert run_recipe(**flags | {"output": straight}, resume=True) == 0
    assert {name: value for name, value in files_in(straight).items() if name != "exit.json"} == {
        name: value for name, value in before.items() if name != "exit.json"
    }
    assert files_in(straight) == before
    assert run_recipe(**flags | {"output": straight, "epochs": 7}, resume=True) == 2
    assert files_in(straight) == before


def test_gradients_that_stay_infinite_are_exit_three(flags: dict[str, Any], run_recipe: RunRecipe) -> None:
    assert run_recipe(**flags | {"learning_rate": 1e30, "warmup": 0}) == 3
    told = json_of(flags["output"] / "exit.json")
    assert told["code"] == 3
    assert "not finite" in told["reason"]
    assert not (flags["output"] / "model").exists()
