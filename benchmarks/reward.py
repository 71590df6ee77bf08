"""The reward model's step: against TRL's RewardTrainer, against the arithmetic, and its memory.

    python -m benchmarks.reward                           # K = 2, 4, 9; some ten minutes on two quiet cores
    python -m benchmarks.reward --responses 2 4 --rounds 5
    python -m benchmarks.reward --model DIR --only memory

SmolLM2-135M (or --model) in float32 on CPU, prompts of 256 tokens and K responses of 64, all texts drawn anew; both
sides run the same ids, in one process, with all cores, and take turns.

* **Against TRL**: the same rankings expanded to pairs, one optimiser step per two rankings on both sides, after one
  step to warm up. Ours is the recipe's own step (collating, forward, backward, clipping, AdamW). TRL's is timed by its
  own callbacks from the first forward to the zeroed gradients, with what is fastest for it here: float32, no gradient
  checkpointing (its default), no logging, saving or evaluation, ids prepared before, the same fused AdamW and clipping,
  and as many pairs at once as fit the tokens that we forward at once (2,048), accumulated to two rankings.
  Deterministic algorithms are on for our steps, as in every run of ours, and off for TRL's.
* **Against the arithmetic**: forward and backward of the recipe against a plain forward and backward of the same model
  over rows of as many tokens, causal, without any mask.
* **Memory**: what forward and backward of one ranking add to the process that holds the model (peak of its resident
  memory over what it was, as Linux counts it), against one plain row of as many tokens; each in a process of its own.

There is no CUDA table: this has run on CPU alone.
"""

import argparse
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

PROMPT, RESPONSE = 256, 64
RANKINGS_A_STEP = 2
PARTS = ("speed", "arithmetic", "memory")


# --- the rankings -----------------------------------------------------------------------------------------------------


def write_rankings(path: Path, *, model: str, responses: int, prompts: int) -> None:
    """Native records whose prompts and responses have exactly the wanted tokens, template included."""
    from transformers import AutoTokenizer

    from training.core.records import Message, Response
    from training.core.tokens import ChatEncoder

    tokenizer = AutoTokenizer.from_pretrained(model)
    encoder = ChatEncoder(tokenizer)
    words = one_token_words(tokenizer)
    draw = random.Random(responses)

    def prompt_of(count: int) -> str:
        return " ".join(draw.choices(words, k=count))

    def tokens(prompt: str, response: str) -> tuple[int, int]:
        messages = (Message("user", prompt),)
        encoded = encoder.encode_prompt(messages)
        return len(encoded.ids), len(encoder.encode_response(messages, encoded, Response(response)))

    around_prompt, around_response = (found - 9 for found in tokens(prompt_of(9), prompt_of(9)))
    names = [f"r{number}" for number in range(responses)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(prompts):
            prompt = prompt_of(PROMPT - around_prompt)
            texts = [prompt_of(RESPONSE - around_response) for _ in names]
            assert {tokens(prompt, text) for text in texts} == {(PROMPT, RESPONSE)}
            record = {
                "split": "train", "split_group": f"g{number}", "prompt": [{"role": "user", "content": prompt}],
                "responses": [{"id": name, "text": text} for name, text in zip(names, texts, strict=True)],
                "ranking": [[name] for name in names],
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")


def one_token_words(tokenizer: Any) -> list[str]:
    """Words that are one token each, at the start of a text and behind a blank."""

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    vocabulary = sorted(tokenizer.get_vocab())
    plain = [token[1:] for token in vocabulary if token[1:].isascii() and token[1:].isalpha() and token[1:].islower()]
    words = [word for word in plain[::20] if length(word) == 1 and length(f"the {word}") == 2]
    assert len(words) > 100
    return words


# --- our side ---------------------------------------------------------------------------------------------------------


@dataclass
class Ours:
    """The recipe, prepared as for a run; steps are its own."""

    session: Any
    prepared: Any
    member: Any

    @classmethod
    def prepare(cls, model: str, data: Path, folder: Path) -> "Ours":
        """Everything that stands before the first step."""
        from training.core.records import read_rankings
        from training.recipes.configs import RewardConfig, build
        from training.recipes.launch import Session, quieten_transformers
        from training.recipes.reward_setup import make_member, prepare

        quieten_transformers()
        values = {"model": model, "data": str(data), "output": str(folder), "batch_size": RANKINGS_A_STEP,
                  "device": "cpu", "schedule": "constant", "warmup": 0.0}  # fmt: skip
        session = Session("reward", build(RewardConfig, values), folder)
        prepared = prepare(session, read_rankings(data))
        member = make_member(session, prepared, 0)
        assert prepared.layout.packed
        return cls(session, prepared, member)

    def step(self, number: int) -> None:
        """The recipe's step over the rankings of this number (from 0)."""
        from training.recipes.loop import set_rates
        from training.recipes.reward_step import take_step

        set_rates(self.session.config, self.member.optimizer, self.member.course, number + 1)
        figures = take_step(self.session, self.prepared, self.member, self.rankings(number))
        assert not figures.skipped

    def forward_and_backward(self, numbers: list[int]) -> None:
        """The recipe's, over these rankings; gradients are added up."""
        from training.recipes.reward_step import accumulate_gradients

        budget = self.session.config.micro_batch_tokens
        accumulate_gradients(self.session, self.prepared, self.member, numbers, budget=budget)

    def plain(self, rows: int, length: int) -> None:
        """Forward and backward of the same model over causal rows; gradients are added up."""
        import torch

        whole = self.member.model.whole
        ids = torch.randint(whole.config.vocab_size, (rows, length))
        hidden = whole.base_model(input_ids=ids, use_cache=False).last_hidden_state
        whole.score(hidden[:, -1]).sum().backward()

    def rankings(self, number: int) -> list[int]:
        """Of one step."""
        first = number * RANKINGS_A_STEP
        return list(range(first, first + RANKINGS_A_STEP))

    def drop_gradients(self) -> None:
        """As after a step."""
        self.member.optimizer.zero_grad(set_to_none=True)


# --- TRL's side -------------------------------------------------------------------------------------------------------


def expanded(ours: Ours) -> Iterator[dict[str, list[int]]]:
    """All pairs of all rankings, as TRL takes them: the ids that we forward, the better first."""
    for example in ours.prepared.train.tokenised:
        whole = [[*map(int, example.prompt), *map(int, response)] for response in example.responses]
        for better, worse in combinations(whole, 2):
            yield {"chosen_ids": better, "rejected_ids": worse}


def run_in_turn(ours: Ours, folder: Path, *, responses: int, rounds: int) -> dict[str, list[list[float]]]:
    """TRL trains ``rounds`` + 1 steps, and after each of its steps we take one of ours.

    Returns:
        Of each side, wall and processor seconds of every step but the first.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    found: dict[str, list[list[float]]] = {"ours": [], "trl": []}

    class Turns(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            assert not model.is_activation_checkpointing
            torch.use_deterministic_algorithms(False)
            self.started = clock()

        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            found["trl"].append(since(self.started))
            torch.use_deterministic_algorithms(True)
            found["ours"].append(timed(lambda: ours.step(state.global_step - 1)))
            print(f"    {found['trl'][-1][0]:.2f} s against {found['ours'][-1][0]:.2f} s", file=sys.stderr, flush=True)

    pairs = RANKINGS_A_STEP * responses * (responses - 1) // 2
    at_once = pairs_at_once(pairs, tokens=ours.session.config.micro_batch_tokens)
    settings = RewardConfig(
        output_dir=str(folder), max_steps=1 + rounds,
        per_device_train_batch_size=at_once, gradient_accumulation_steps=pairs // at_once,
        learning_rate=ours.session.config.learning_rate, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0,
        max_grad_norm=ours.session.config.max_grad_norm, optim="adamw_torch_fused", adam_beta2=0.999, adam_epsilon=1e-8,
        use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=None, dataloader_num_workers=0,
        train_sampling_strategy="sequential", logging_strategy="no", save_strategy="no", eval_strategy="no",
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(
        ours.session.config.model, num_labels=1, dtype=torch.float32
    )
    trainer = RewardTrainer(
        model, settings, train_dataset=Dataset.from_list(list(expanded(ours))),
        processing_class=ours.prepared.tokenizer, callbacks=[Turns()],
    )  # fmt: skip
    assert not any(module.training and getattr(module, "p", 0) for module in model.modules())
    trainer.train()
    return {side: steps[1:] for side, steps in found.items()}


def pairs_at_once(pairs: int, *, tokens: int) -> int:
    """The most pairs that fit these tokens and divide a step's pairs."""
    fitting = [count for count in range(1, pairs + 1) if pairs % count == 0]
    return max([count for count in fitting if count * 2 * (PROMPT + RESPONSE) <= tokens], default=1)


# --- clocks -----------------------------------------------------------------------------------------------------------


def clock() -> tuple[float, float]:
    """Wall and processor time (of all threads), in seconds."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> list[float]:
    """Seconds since then."""
    return [now - then for now, then in zip(clock(), start, strict=True)]


def timed(action: Callable[[], object]) -> list[float]:
    """Seconds of an action."""
    start = clock()
    action()
    return since(start)


def memory_now(field: str) -> float:
    """A field of this process's status (VmRSS, VmHWM), in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


# --- the parts, each in a process of its own --------------------------------------------------------------------------


def measure_speed(ours: Ours, folder: Path, *, responses: int, rounds: int) -> dict[str, Any]:
    """Steps of both sides, in turn."""
    return dict(run_in_turn(ours, folder, responses=responses, rounds=rounds))


def measure_arithmetic(ours: Ours, _: Path, *, responses: int, rounds: int) -> dict[str, Any]:
    """Forward and backward of a step's rankings, and of plain rows of as many tokens, in turn."""
    length = PROMPT + responses * RESPONSE
    found: dict[str, list[list[float]]] = {"ours": [], "plain": []}
    for number in range(1 + rounds):
        found["ours"].append(timed(lambda number=number: ours.forward_and_backward(ours.rankings(number))))
        ours.drop_gradients()
        found["plain"].append(timed(lambda: ours.plain(RANKINGS_A_STEP, length)))
        ours.drop_gradients()
    return {"tokens": RANKINGS_A_STEP * length, **{side: steps[1:] for side, steps in found.items()}}


def measure_memory(ours: Ours, _: Path, *, responses: int, rounds: int) -> dict[str, Any]:
    """What one forward and backward adds at its peak; of a plain row where ``rounds`` is 0, else of a ranking."""
    # A short one first: weights are read and libraries allocate once what they keep. What this left free goes back.
    ours.plain(1, 8)
    ours.drop_gradients()
    ctypes.CDLL(None).malloc_trim(0)
    before = memory_now("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    if rounds:
        ours.forward_and_backward([0])
    else:
        ours.plain(1, PROMPT + responses * RESPONSE)
    return {"added_mb": memory_now("VmHWM") - before}


def run_child(part: str, options: argparse.Namespace, *, responses: int, rounds: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    child = [sys.executable, "-m", "benchmarks.reward", "--child", part, f"--model={options.model}",
             f"--responses={responses}", f"--rounds={rounds}", f"--threads={options.threads}"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(child, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(options: argparse.Namespace) -> None:
    """Runs in the child: prepares the recipe, measures, prints one JSON line."""
    import torch

    torch.set_num_threads(options.threads)
    measure = {"speed": measure_speed, "arithmetic": measure_arithmetic, "memory": measure_memory}[options.child]
    (responses,) = options.responses
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["PLACKETT_CACHE"] = str(folder / "cache")
        data = folder / "rankings.jsonl"
        write_rankings(
            data, model=options.model, responses=responses, prompts=RANKINGS_A_STEP * (1 + max(1, options.rounds))
        )
        ours = Ours.prepare(options.model, data, folder / "ours")
        found = measure(ours, folder / "trl", responses=responses, rounds=options.rounds)
    print(json.dumps(found))


# --- the tables -------------------------------------------------------------------------------------------------------


def show_speed(options: argparse.Namespace) -> None:
    """A line per K: seconds a step, the ratio, and how many times fewer tokens are forwarded."""
    print("\nOne optimiser step per two rankings, seconds (median of rounds taken in turn)")
    print(f"{'K':>3} {'rounds':>7} {'TRL':>9} {'ours':>9} {'faster':>8} {'in CPU time':>12} {'fewer tokens':>13}")
    for responses in options.responses:
        rounds = options.rounds if responses < 9 else max(1, options.rounds // 3)
        found = run_child("speed", options, responses=responses, rounds=rounds)
        trl, ours = ([statistics.median(times) for times in zip(*found[side], strict=True)] for side in ("trl", "ours"))
        tokens = responses * (responses - 1) * (PROMPT + RESPONSE) / (PROMPT + responses * RESPONSE)
        print(
            f"{responses:>3} {rounds:>7} {trl[0]:>9.2f} {ours[0]:>9.2f} {trl[0] / ours[0]:>7.2f}x "
            f"{trl[1] / ours[1]:>11.2f}x {tokens:>12.2f}x",
            flush=True,
        )


def show_arithmetic(options: argparse.Namespace) -> None:
    """A line per K: tokens a second of forward and backward, packed and plain."""
    print("\nForward and backward, tokens per second: packed rankings, and plain causal rows of the same length")
    print(f"{'K':>3} {'plain':>9} {'packed':>9} {'share':>8} {'in CPU time':>12}")
    for responses in options.responses:
        found = run_child("arithmetic", options, responses=responses, rounds=max(1, options.rounds))
        plain, ours = (
            [found["tokens"] / statistics.median(times) for times in zip(*found[side], strict=True)]
            for side in ("plain", "ours")
        )
        print(
            f"{responses:>3} {plain[0]:>9.0f} {ours[0]:>9.0f} {ours[0] / plain[0]:>8.0%} {ours[1] / plain[1]:>12.0%}",
            flush=True,
        )


def show_memory(options: argparse.Namespace) -> None:
    """What one ranking of the largest K adds to the memory, against a plain row."""
    responses = max(options.responses)
    plain, packed = (run_child("memory", options, responses=responses, rounds=rounds)["added_mb"] for rounds in (0, 1))
    tokens = PROMPT + responses * RESPONSE
    print(f"\nMemory added by forward and backward of {tokens} tokens, gradients included (K = {responses})")
    print(f"plain row {plain:.0f} MB, packed ranking {packed:.0f} MB: {packed / plain:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder (SmolLM2-135M from its wheel)")
    parser.add_argument("--responses", type=int, nargs="+", default=[2, 4, 9], help="responses per ranking")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each side; a third as many from K = 9 on")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides")
    parser.add_argument("--only", choices=PARTS, help="one part of three")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options)
    with tempfile.TemporaryDirectory() as scratch:
        if options.model is None:
            from training.core.local_models import unpack_smollm2

            options.model = str(unpack_smollm2(Path(scratch) / "smollm2"))
        load = os.getloadavg()[0]
        print(f"{options.threads} threads of {os.cpu_count()} cores, load before the start {load:.1f}", flush=True)
        shows = {"speed": show_speed, "arithmetic": show_arithmetic, "memory": show_memory}
        for part in [options.only] if options.only else PARTS:
            shows[part](options)


if __name__ == "__main__":
    main()
