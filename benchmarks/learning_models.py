"""The two trainers and the one scorer of `benchmarks.learning`, each a process of its own.

Ours is ``python -m training.recipes.reward``. TRL's RewardTrainer runs in ``python -m benchmarks.learning trl``, with
the settings that ours has: AdamW without decay, gradients to norm 1, the same course of the rate, float32, the chat
template. The scorer, ``python -m benchmarks.learning score``, knows neither: plain transformers, one response a row.
"""

import copy
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SCORED_TOKENS_AT_ONCE = 1024
MAX_LENGTH = 2048


def train_ours(data: Path, output: Path, *, model: str, settings: dict[str, Any]) -> Path:
    """Run our recipe unless it has finished there already; returns the folder of the model."""
    flags = {"model": model, "data": data, "output": output, "checkpoint-every": 100_000, **settings}
    _run_once(output, ["training.recipes.reward", *(f"--{name}={value}" for name, value in flags.items())])
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return output / "model"


def train_peer(data: Path, output: Path, *, model: str, settings: dict[str, Any]) -> Path:
    """Run TRL's RewardTrainer on the pairs of the split ``train``; returns the folder of the model."""
    flags = {"model": model, "data": data, "output": output, **settings}
    _run_once(output, ["benchmarks.learning", "trl", *(f"--{name}={value}" for name, value in flags.items())])
    return output / "model"


def score(model: Path, data: Path, *, split: str) -> list[tuple[float, float]]:
    """The scores of both responses of every record of a split, in the order of the file; kept beside the model."""
    kept = model.parent / f"scores-{split}.json"
    if not kept.exists():
        flags = [f"--model={model}", f"--data={data}", f"--split={split}", f"--output={kept}"]
        _run(["benchmarks.learning", "score", *flags])
    return [tuple(pair) for pair in json.loads(kept.read_text())]


def trained_scale(model: Path) -> tuple[float, float | None]:
    """What our recipe says of its scores: the factor back to what was trained, and ln of the learned tie parameter."""
    config = json.loads((model / "config.json").read_text())
    learned = config.get("plackett_thresholds") or {}
    tie = learned.get("eta", learned.get("nu"))
    return config.get("plackett_score_scale", 1.0), None if tie is None else math.log(tie)


def seconds_of(output: Path) -> float:
    """How long the training in ``output`` took, start and saving included."""
    return float(json.loads((output / "seconds.json").read_text()))


def _run_once(output: Path, command: list[str]) -> None:
    if (output / "seconds.json").exists():
        return
    # What an interrupted run has left cannot be told from a finished one by TRL: from the start.
    shutil.rmtree(output, ignore_errors=True)
    started = time.monotonic()
    _run(command)
    (output / "seconds.json").write_text(json.dumps(round(time.monotonic() - started, 1)))


def _run(command: list[str]) -> None:
    print("$ python -m", *command, flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def read_records(data: Path, *, split: str) -> list[dict[str, Any]]:
    """The lines of one split of a native file."""
    with open(data, encoding="utf-8") as file:
        return [record for record in map(json.loads, file) if record["split"] == split]


# --- inside the processes ---------------------------------------------------------------------------------------------


def run_trl(
    *,
    data: Path,
    output: Path,
    model: str,
    learning_rate: float,
    lora_rank: int,
    pairs_per_step: int,
    warmup: float,
    seed: int,
) -> None:
    """One pass over the strict pairs of the split ``train``, one pair forwarded at a time."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from training.core.schedule import learning_rate as rate_of

    tokenizer = AutoTokenizer.from_pretrained(model)
    torch.manual_seed(seed)
    whole = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
    if lora_rank:
        layers = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=lora_rank,
            lora_alpha=2 * lora_rank,
            lora_dropout=0.0,
            target_modules="all-linear",
            modules_to_save=["score"],
        )
        whole = get_peft_model(whole, layers)
    config = RewardConfig(
        output_dir=str(output),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=pairs_per_step,
        num_train_epochs=1,
        max_grad_norm=1.0,
        max_length=MAX_LENGTH,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    pairs = [_preference(record) for record in read_records(data, split="train") if len(record["ranking"]) == 2]
    # The course of our recipe: transformers' own spends its first step at rate 0.
    steps = math.ceil(len(pairs) / pairs_per_step)
    trained = [value for value in whole.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.999), weight_decay=0.0)
    course = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda done: rate_of(min(done + 1, steps), steps=steps, peak=1.0, warmup=warmup, schedule="cosine"),
    )
    trainer = RewardTrainer(
        model=whole,
        args=config,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        optimizers=(optimizer, course),
    )
    trainer.train()
    print(f"trained {trainer.state.global_step} steps on {len(pairs)} pairs", flush=True)
    whole = whole.merge_and_unload() if lora_rank else whole
    whole.save_pretrained(output / "model")
    tokenizer.save_pretrained(output / "model")


def _preference(record: dict[str, Any]) -> dict[str, Any]:
    texts = {response["id"]: response["text"] for response in record["responses"]}
    chosen, rejected = ([{"role": "assistant", "content": texts[tier[0]]}] for tier in record["ranking"])
    return {"prompt": record["prompt"], "chosen": chosen, "rejected": rejected}


def run_scorer(*, model: Path, data: Path, split: str, output: Path) -> None:
    """Write a JSON list with the two scores of each record; every distinct response to a prompt is scored once."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="right")
    whole = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32).eval()
    records = read_records(data, split=split)
    rows: dict[str, dict[str, list[int]]] = {}
    for record in records:
        of_prompt = rows.setdefault(json.dumps(record["prompt"]), {})
        for response in record["responses"]:
            of_prompt.setdefault(response["text"], _ids(tokenizer, record, response))
    with torch.no_grad():
        found = {
            prompt: dict(zip(texts, score_texts(whole, list(texts.values())), strict=True))
            for prompt, texts in rows.items()
        }
    scores = [
        [found[json.dumps(record["prompt"])][response["text"]] for response in record["responses"]]
        for record in records
    ]
    output.write_text(json.dumps(scores))


def score_texts(whole: Any, rows: list[list[int]]) -> list[float]:
    """The scores of token sequences that begin alike; the model's cache holds what they share."""
    import torch

    shared = min(len(os.path.commonprefix(rows)), min(map(len, rows)) - 1)
    prefix = whole.base_model(input_ids=torch.tensor([rows[0][:shared]]), use_cache=True).past_key_values
    longest_first = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    found: dict[int, float] = {}
    while longest_first:
        ends = [rows[place][shared:] for place in longest_first]
        # Of similar length, so that little is padding.
        width = len(ends[0])
        count = sum(len(end) * 4 >= width * 3 for end in ends[: max(1, SCORED_TOKENS_AT_ONCE // width)])
        places, ends, longest_first = longest_first[:count], ends[:count], longest_first[count:]
        ids = torch.tensor([end + [0] * (width - len(end)) for end in ends])
        mask = torch.tensor([[1] * (shared + len(end)) + [0] * (width - len(end)) for end in ends])
        cache = copy.deepcopy(prefix)
        cache.batch_repeat_interleave(count)
        states = whole.base_model(input_ids=ids, attention_mask=mask, past_key_values=cache).last_hidden_state
        last = states[torch.arange(count), torch.tensor([len(end) - 1 for end in ends])]
        found.update(zip(places, whole.score(last)[:, 0].tolist(), strict=True))
    return [found[place] for place in range(len(rows))]


def _ids(tokenizer: Any, record: dict[str, Any], response: dict[str, Any]) -> list[int]:
    messages = [*record["prompt"], {"role": "assistant", "content": response["text"]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
