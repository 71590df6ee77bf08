"""The processes of `benchmarks.policies`: our recipes, and answers of a model by plain transformers.

``python -m benchmarks.policies answer`` knows nothing of the recipes: it samples with ``generate`` of transformers and
looks for the last whole number of each answer.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.learning_models import read_records

ROWS_AT_ONCE = 64
ANSWER_LENGTH = 16


def run_recipe(name: str, output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Run a recipe, or go on with it, unless it has finished; returns its report."""
    if not _is_finished(output):
        flags = [f"--{flag}={value}" for flag, value in {**settings, "output": output}.items()]
        started = time.monotonic()
        _run([f"training.recipes.{name}", *flags, *(["--resume"] if (output / "run.json").exists() else [])])
        spent = time.monotonic() - started + seconds_of(output)
        (output / "seconds.json").write_text(json.dumps(round(spent, 1)))
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return report


def seconds_of(output: Path) -> float:
    """How long a run took, starts and saving included, over all its parts; 0 where it has not been timed."""
    kept = output / "seconds.json"
    return float(json.loads(kept.read_text())) if kept.exists() else 0.0


def read_metrics(output: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, a step each."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def answers(model: Path, data: Path, *, split: str, way: str, kept: Path) -> list[dict[str, Any]]:
    """What a model answers to each prompt of a split, ``way`` greedy or sampled; kept in a file."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        flags = [f"--model={model}", f"--data={data}", f"--split={split}", f"--way={way}", f"--output={kept}"]
        _run(["benchmarks.policies", "answer", *flags])
    found: list[dict[str, Any]] = json.loads(kept.read_text())
    return found


def _is_finished(output: Path) -> bool:
    # The model is written last.
    return (output / "report.json").exists() and (output / "model" / "config.json").exists()


def _run(command: list[str]) -> None:
    print("$ python -m", *command, flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


# --- inside the process -----------------------------------------------------------------------------------------------


def run_answer(*, model: Path, data: Path, split: str, way: str, output: Path) -> None:
    """Write a JSON list: the text of each answer, whether it ended by itself, and whether it is right."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    records = read_records(data, split=split)
    torch.manual_seed(0)
    found = []
    for start in range(0, len(records), ROWS_AT_ONCE):
        batch = records[start : start + ROWS_AT_ONCE]
        texts = [
            tokenizer.apply_chat_template(record["prompt"], tokenize=False, add_generation_prompt=True)
            for record in batch
        ]
        rows = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        chosen = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if way == "sampled" else {}
        with torch.no_grad():
            ids = whole.generate(
                **rows, max_new_tokens=ANSWER_LENGTH, pad_token_id=tokenizer.pad_token_id,
                **({"do_sample": False} | chosen),
            )  # fmt: skip
        end = whole.generation_config.eos_token_id
        ends = set(end if isinstance(end, list) else [end])
        for record, row in zip(batch, ids[:, rows["input_ids"].shape[1] :].tolist(), strict=True):
            text = tokenizer.decode(row, skip_special_tokens=True).strip()
            found.append({"text": text, "ended": bool(ends & set(row)), "right": is_right(text, record["answer"])})
    output.write_text(json.dumps(found, indent=0))


def is_right(text: str, answer: str) -> bool:
    """Whether the last whole number of a text is the answer."""
    numbers = re.findall(r"\d+", text.replace(",", ""))
    return bool(numbers) and numbers[-1] == answer
