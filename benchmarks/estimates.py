"""What a sampling run takes, beside what is told of it before: peak memory, and operations a second.

    python -m benchmarks.estimates                   # a few minutes on two quiet cores
    python -m benchmarks.estimates --model DIR --case 16 1 64

SmolLM2-135M (or --model) in float32 on CPU; prompts of some 60 tokens, each case in a process of its own. The memory is
the largest resident set of the recipe's process; what is told is the formula of ``training.core.answering_work`` and
what libraries take. Seconds are those of the steps; operations are told of responses that all get as long as they may.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from training.core.answering_work import Answering, need_of_answers
from training.core.memory import LIBRARY_BYTES
from training.core.model_sizes import read_model_size
from training.core.text_counts import BYTE_VOCABULARY, count_texts
from training.recipes.configs import SampleConfig, build, to_arguments, to_values

# Prompts, responses to each, tokens of a response at most.
CASES = ((4, 1, 64), (16, 1, 64), (16, 4, 64), (16, 1, 256), (64, 4, 32))
WORDS = ("the", "river", "house", "carries", "morning", "light", "over", "quiet", "fields", "while", "people", "walk")
GIB = 2**30


def prompt_lines(count: int) -> list[str]:
    """Prompts of 55 words, all different."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=55)) for _ in range(count)]
    return [
        json.dumps({"format": "plackett/1", "type": "prompt", "split": "train", "split_group": str(number),
                    "prompt": [{"role": "user", "content": text}]})
        for number, text in enumerate(texts)
    ]  # fmt: skip


def measure(model: Path, folder: Path, case: tuple[int, int, int]) -> None:
    """Sample, and print what it took beside what is told."""
    prompts, each, length = case
    data = folder / "prompts.jsonl"
    lines = prompt_lines(prompts)
    data.write_text("".join(line + "\n" for line in lines))
    output = folder / "-".join(map(str, case))
    values = {"model": [str(model)], "data": str(data), "output": str(output), "batch_size": 16, "device": "cpu"}
    config = build(SampleConfig, values | {"samples_per_prompt": each, "max_response_length": length})
    command = [sys.executable, "-m", "training.recipes.sample", *to_arguments(config)]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "log.txt").read_text())
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(row["time/step_seconds"] for row in rows)
    tokens = sum(row["sample/length_mean"] * min(16, prompts) * each for row in rows)
    size = read_model_size(model)
    texts = count_texts(lines, bytewise=size.vocabulary <= BYTE_VOCABULARY)
    need = need_of_answers(Answering(to_values(config), [(size, each)], [], texts))
    told = (need.peak_bytes + LIBRARY_BYTES) / GIB
    print(
        f"{prompts:>7}{each:>6}{length:>8}{usage.ru_maxrss * 1024 / GIB:>12.2f}{told:>8.2f}{need.operations:>14.2e}"
        f"{seconds:>10.1f}{need.operations / seconds / 1e9:>10.1f}{tokens / seconds:>10.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder (unset: SmolLM2-135M-Instruct)")
    parser.add_argument("--case", type=int, nargs=3, metavar=("PROMPTS", "EACH", "LENGTH"), help="this one alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or folder / "smollm2"
        if options.model is None:
            subprocess.run([sys.executable, "-m", "training.recipes.smollm2", "--output", str(model)], check=True)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        print(f"{'prompts':>7}{'each':>6}{'length':>8}{'GiB taken':>12}{'told':>8}{'operations':>14}{'seconds':>10}"
              f"{'10⁹/s':>10}{'tokens/s':>10}")  # fmt: skip
        for case in [tuple(options.case)] if options.case else CASES:
            measure(model, folder, case)
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
