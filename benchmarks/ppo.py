"""PPO against TRL 1.12.0, the last release that had it: episodes per second, memory, and where the time goes.

    python -m benchmarks.ppo                             # half an hour on two quiet cores
    python -m benchmarks.ppo --part lora --prompts 8

SmolLM2-135M (or --model) in float32 on CPU: 32 prompts of 64 tokens, responses of exactly 64, 4 inner epochs, 8
responses at once in training on both sides; every side in a process of its own, the two in turn (--rounds; seconds are
means), one step after a short one to warm up. TRL 1.12.0 is installed into a folder of its own (or is there, --trl).

* **full**: all weights of the policy, and a value model with all its weights, on both sides.
* **lora**: ours with a shared trunk (one frozen base; adapters of rank 16 for policy and value, the reward's as it was
  trained); TRL with ``peft_config`` of the same rank on the policy; all weights of its value model are trained.

Peak memory is that of the whole process during the step, as Linux counts it. The generate phase is set beside plain
``generate`` of transformers on the same prompts in one batch. The score after the step is of fresh responses to the
same prompts; after 32 episodes it says that both sides do the same, not which learns better. Under the phases stands
how long our step's matrix products alone would take at the rate that this machine reaches on one of them: what is left
of the step is all that better code could still save without doing less arithmetic.

There is no CUDA table: this has run on CPU alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.ppo_ours import PROMPT, RESPONSE
from benchmarks.reward import one_token_words

LORA_RANK = 16
TRL = "trl==1.12.0"
PARTS = ("full", "lora")


def write_prompts(path: Path, ids_path: Path, *, model: str, count: int) -> None:
    """Prompts of exactly 64 tokens, template included: as lines for us and as ids for TRL."""
    import random

    from transformers import AutoTokenizer

    from training.core.records import Message
    from training.core.tokens import ChatEncoder

    tokenizer = AutoTokenizer.from_pretrained(model)
    encoder, words, draw = ChatEncoder(tokenizer), one_token_words(tokenizer), random.Random(0)

    def ids_of(words_of_prompt: list[str]) -> tuple[int, ...]:
        return encoder.encode_prompt((Message("user", " ".join(words_of_prompt)),)).ids

    around = len(ids_of(words[:9])) - 9
    drawn = [draw.choices(words, k=PROMPT - around) for _ in range(count)]
    found = [ids_of(each) for each in drawn]
    assert {len(ids) for ids in found} == {PROMPT}
    lines = [
        {"type": "prompt", "split": "train", "split_group": f"g{number}",
         "prompt": [{"role": "user", "content": " ".join(each)}]}
        for number, each in enumerate(drawn)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    ids_path.write_text(json.dumps(found))


def make_reward_run(model: str, folder: Path, *, lora_rank: int) -> Path:
    """A reward model's run on the same base: two steps on two rankings; what it scores does not matter here."""
    data = folder / "rankings.jsonl"
    lines = [
        {"split": "train", "split_group": f"g{number}", "prompt": f"question {number}", "ranking": [["a"], ["b"]],
         "responses": [{"id": "a", "text": "yes, indeed"}, {"id": "b", "text": "no"}]}
        for number in range(2)
    ]  # fmt: skip
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    run = folder / f"reward-{lora_rank}"
    child = [sys.executable, "-m", "training.recipes.reward", f"--model={model}", f"--data={data}", f"--output={run}",
             f"--lora-rank={lora_rank}", "--max-steps=2", "--device=cpu"]  # fmt: skip
    subprocess.run(child, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return run


def run_side(module: str, arguments: list[str], *, threads: int, path: Path | None = None) -> dict[str, Any]:
    """One side's step in a process of its own; what it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    child = [sys.executable, "-m", module, *arguments, f"--threads={threads}"]
    done = subprocess.run(child, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(part: str, options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ours and TRL's in turn."""
    reward = make_reward_run(options.model, folder, lora_rank=LORA_RANK if part == "lora" else 0)
    rounds = [measure_once(part, options, folder, reward) for _ in range(options.rounds)]
    ours, trl = (mean_of(side) for side in zip(*rounds, strict=True))
    return ours, trl


def mean_of(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of seconds, the highest peak; what the rounds have in common as it was in the first."""
    found = dict(rounds[0])
    for name in found:
        if name.endswith("seconds"):
            found[name] = fmean(each[name] for each in rounds)
    if "phases" in found:
        found["phases"] = {name: fmean(each["phases"][name] for each in rounds) for name in found["phases"]}
    return found | {"peak_mb": max(each["peak_mb"] for each in rounds), "all": [each["seconds"] for each in rounds]}


def measure_once(
    part: str, options: argparse.Namespace, folder: Path, reward: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ours, then TRL's."""
    rank = LORA_RANK if part == "lora" else 0
    ours = run_side(
        "benchmarks.ppo_ours",
        [f"--model={options.model}", f"--reward={reward}", f"--prompts={folder / 'prompts.jsonl'}",
         f"--lora-rank={rank}", f"--micro-batch={options.micro_batch}", f"--count={options.prompts}"],
        threads=options.threads,
    )  # fmt: skip
    trl = run_side(
        "benchmarks.ppo_peer",
        [f"--model={options.model}", f"--reward-model={reward / 'model'}", f"--part={part}",
         f"--prompt-ids={folder / 'prompts.json'}", f"--prompts={options.prompts}", f"--prompt-tokens={PROMPT}",
         f"--response-tokens={RESPONSE}", f"--micro-batch={options.micro_batch}", f"--rollout-batch={options.prompts}"],
        threads=options.threads, path=options.trl,
    )  # fmt: skip
    return ours, trl


def show(part: str, ours: dict[str, Any], trl: dict[str, Any], episodes: int) -> None:
    """The ratios, and where our time goes."""
    print(f"\n{part}: {episodes} episodes, {PROMPT} + {RESPONSE} tokens (ours: {ours['trunk']} weights)")
    print(f"{'':>6} {'seconds':>9} {'episodes/s':>11} {'peak MB':>9} {'score after':>12}")
    for name, side in (("TRL", trl), ("ours", ours)):
        print(f"{name:>6} {side['seconds']:>9.1f} {episodes / side['seconds']:>11.3f} {side['peak_mb']:>9.0f} "
              f"{side['score_after']:>12.3f}")  # fmt: skip
    for name, side in (("TRL", trl), ("ours", ours)):
        if len(side["all"]) > 1:
            print(f"{name:>6} by round: {', '.join(f'{seconds:.1f} s' for seconds in side['all'])}")
    print(f"faster {trl['seconds'] / ours['seconds']:.2f}x, memory {ours['peak_mb'] / trl['peak_mb']:.2f}x")
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ours["phases"].items())
    print(f"our phases: {phases}")
    products = ours["products"]
    least = (products["rollout"] + products["learn"]) / products["per_second"]
    print(f"our matrix products: {products['rollout']:.1f} + {products['learn']:.1f} TFLOP, at "
          f"{1000 * products['per_second']:.0f} GFLOP/s {least:.1f} s; TRL's time over that: "
          f"{trl['seconds'] / least:.2f}")  # fmt: skip
    ratio = ours["phases"]["sample"] / ours["bare_generate_seconds"]
    print(f"generate: ours {ours['phases']['sample']:.1f} s, plain {ours['bare_generate_seconds']:.1f} s "
          f"({ratio:.2f}x), TRL {trl['generate_seconds']:.1f} s", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, help="folder with TRL 1.12.0 (else installed for the time of the run)")
    parser.add_argument("--model", help="model folder (SmolLM2-135M from its wheel)")
    parser.add_argument("--part", choices=PARTS, help="one part of two")
    parser.add_argument("--prompts", type=int, default=32, help="prompts, one response each")
    parser.add_argument("--micro-batch", type=int, default=8, help="responses at once in training")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.trl is None:
            options.trl = folder / "trl"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={options.trl}", TRL]
            subprocess.run(pip, check=True)
        if options.model is None:
            from training.core.local_models import unpack_smollm2

            options.model = str(unpack_smollm2(folder / "smollm2"))
        write_prompts(folder / "prompts.jsonl", folder / "prompts.json", model=options.model, count=options.prompts)
        load = os.getloadavg()[0]
        print(f"{options.threads} threads of {os.cpu_count()} cores, load before the start {load:.1f}", flush=True)
        for part in [options.part] if options.part else PARTS:
            ours, trl = measure(part, options, folder)
            show(part, ours, trl, options.prompts)


if __name__ == "__main__":
    main()
