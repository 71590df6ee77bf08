"""SFT with packing against TRL's SFTTrainer, without and with its own packing.

    python -m benchmarks.sft                        # some twenty minutes on two quiet cores
    python -m benchmarks.sft --rounds 2 --only plain
    python -m benchmarks.sft --lengths FILE.jsonl   # lengths of these native records, in their own tokens

SmolLM2-135M (or --model) in float32 on CPU. The documents have the lengths of Open-Assistant's ranked replies (prompt:
the whole conversation before the best reply; ``DECILES``, from the 100 English trees that it publishes as a sample), or
those of a file; their texts are drawn anew. Both sides train on the same ids, in one process, with all cores, and take
turns after one step to warm up. What is compared are the response tokens learned per second: the sum over all steps
by the sum of their times.

* **Ours** is the recipe's own step over 8 documents (packing into rows of 2,048 tokens, collating, forward, backward,
  clipping, AdamW), with deterministic algorithms on, as in every run.
* **TRL** is timed by its own callbacks from the first forward to the zeroed gradients, collating left out, with what
  is fastest for it here: float32, no gradient checkpointing (its default), no logging, saving or evaluation, ids and
  labels prepared before, the same fused AdamW and clipping, deterministic algorithms off. Its loss, too, is on the
  responses alone. Without packing it takes the same 8 documents a step, 4 at once and 4 more added up: 8 at once, its
  default, need more than 24 GB where long ones are among them, and hold more padding. With packing it takes its own
  rows ("bfd", 2,048 tokens), as many a step as hold 8 documents on average.

There is no CUDA table: this has run on CPU alone.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reward import clock as clocks
from benchmarks.reward import one_token_words, since, timed

DOCUMENTS_A_STEP = 8
PADDED_AT_ONCE = 4
ROW_TOKENS = 2048
PARTS = ("plain", "packed")
# Tokens of prompt and of response, template included: minimum, deciles, maximum, of 211 documents.
DECILES = {
    "prompt": (32, 41, 48, 57, 75, 106, 159, 220, 304, 484, 1272),
    "response": (9, 37, 72, 101, 135, 190, 229, 293, 343, 452, 1049),
}
SHORTEST = {"prompt": 16, "response": 4}


# --- the documents ----------------------------------------------------------------------------------------------------


def drawn_lengths(count: int) -> list[tuple[int, int]]:
    """Tokens of prompt and response of so many documents: both from their deciles, straight lines between them."""
    draw = random.Random(0)

    def one(deciles: Sequence[int]) -> int:
        place = draw.random() * (len(deciles) - 1)
        low = int(place)
        return round(deciles[low] + (place - low) * (deciles[low + 1] - deciles[low]))

    return [(one(DECILES["prompt"]), one(DECILES["response"])) for _ in range(count)]


def lengths_of(path: Path, *, model: str, count: int) -> list[tuple[int, int]]:
    """Of the documents of a native file, drawn as often as needed; those that fill no row are left out."""
    from transformers import AutoTokenizer

    from training.core.conversations import read_demonstrations
    from training.core.tokens import ChatEncoder

    encoder = ChatEncoder(AutoTokenizer.from_pretrained(model))
    found = []
    for line in read_demonstrations(path, seed=0).demonstrations:
        prompt = encoder.encode_prompt(line.prompt)
        response = encoder.encode_response(line.prompt, prompt, line.response)
        if len(prompt.ids) + len(response) <= ROW_TOKENS:
            found.append((len(prompt.ids), len(response)))
    return random.Random(0).choices(found, k=count)


def write_documents(path: Path, lengths: Sequence[tuple[int, int]], *, model: str) -> None:
    """Native demonstrations whose prompts and responses have these tokens, template included."""
    from transformers import AutoTokenizer

    from training.core.records import Message, Response
    from training.core.tokens import ChatEncoder

    tokenizer = AutoTokenizer.from_pretrained(model)
    encoder = ChatEncoder(tokenizer)
    words, draw = one_token_words(tokenizer), random.Random(1)

    def text(count: int) -> str:
        return " ".join(draw.choices(words, k=count))

    def tokens(prompt: str, response: str) -> tuple[int, int]:
        messages = (Message("user", prompt),)
        encoded = encoder.encode_prompt(messages)
        return len(encoded.ids), len(encoder.encode_response(messages, encoded, Response(response)))

    around = [found - 9 for found in tokens(text(9), text(9))]
    with path.open("w", encoding="utf-8") as file:
        for number, wanted in enumerate(lengths):
            prompt, response = (text(max(1, size - extra)) for size, extra in zip(wanted, around, strict=True))
            record = {"type": "demonstration", "split": "train", "split_group": f"g{number}",
                      "prompt": [{"role": "user", "content": prompt}], "response": response}  # fmt: skip
            file.write(json.dumps(record) + "\n")


# --- our side ---------------------------------------------------------------------------------------------------------


@dataclass
class Ours:
    """The recipe, prepared as for a run; steps are its own."""

    session: Any
    prepared: Any

    @classmethod
    def prepare(cls, model: str, data: Path, folder: Path) -> "Ours":
        """Everything that stands before the first step."""
        from training.recipes.configs import SftConfig, build
        from training.recipes.launch import Session, quieten_transformers
        from training.recipes.sft_setup import prepare, read_data

        quieten_transformers()
        values = {"model": model, "data": str(data), "output": str(folder), "batch_size": DOCUMENTS_A_STEP,
                  "device": "cpu", "schedule": "constant", "warmup": 0.0, "micro_batch_tokens": ROW_TOKENS,
                  "max_length": 2 * ROW_TOKENS}  # fmt: skip
        config = build(SftConfig, values)
        session = Session("sft", config, folder)
        prepared = prepare(session, read_data(config))
        assert prepared.layout.packed
        return cls(session, prepared)

    def step(self, number: int) -> int:
        """The recipe's step over the documents of this number (from 0); the response tokens that it learned."""
        from functools import partial

        from training.core.imitation import imitate
        from training.recipes.loop import set_rates
        from training.recipes.policy_step import update

        prepared, session = self.prepared, self.session
        set_rates(session.config, prepared.learner.optimizer, prepared.course, number + 1)
        numbers = self.documents(number)
        accumulate = partial(
            imitate, prepared.learner.model, prepared.train, numbers, prepared.layout, world=session.world
        )
        done = update(session, prepared.learner, prepared.budget, lambda tokens: accumulate(tokens=tokens))
        assert not done.skipped
        return sum(map(prepared.train.targets, numbers))

    def documents(self, number: int) -> list[int]:
        """Of one step."""
        first = number * DOCUMENTS_A_STEP
        return list(range(first, first + DOCUMENTS_A_STEP))

    def rows(self) -> Iterator[dict[str, list[int]]]:
        """All documents as TRL takes them: the ids that we forward, labels on what we learn."""
        documents = self.prepared.train
        for number in range(len(documents)):
            ids, context = list(documents.ids(number)), documents.contexts[number]
            yield {"input_ids": ids, "labels": [-100] * context + ids[context:]}


# --- TRL's side -------------------------------------------------------------------------------------------------------


def run_in_turn(ours: Ours, folder: Path, *, packing: bool) -> dict[str, list[list[float]]]:
    """TRL trains on all documents once, and after each of its steps we take one of ours, as long as we have some.

    Returns:
        Of each side, wall seconds, processor seconds and response tokens of every step but the first.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    found: dict[str, list[list[float]]] = {"ours": [], "trl": []}
    steps = len(ours.prepared.train) // DOCUMENTS_A_STEP

    class Turns(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            assert not model.is_activation_checkpointing
            torch.use_deterministic_algorithms(False)
            trainer.learned = 0
            self.started = clocks()

        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            found["trl"].append([*since(self.started), trainer.learned])
            torch.use_deterministic_algorithms(True)
            if len(found["ours"]) < steps:
                take_ours()
            show(found)

    def take_ours() -> None:
        number, learned = len(found["ours"]), [0]
        times = timed(lambda: learned.append(ours.step(number)))
        found["ours"].append([*times, learned[-1]])

    class Counting(SFTTrainer):  # type: ignore[misc]
        learned = 0

        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            self.learned += int((inputs["labels"][:, 1:] != -100).sum())
            return super().compute_loss(model, inputs, *rest, **named)

    table = Dataset.from_list(list(ours.rows()))
    settings = SFTConfig(
        output_dir=str(folder), num_train_epochs=1, dataloader_drop_last=False,
        per_device_train_batch_size=1 if packing else PADDED_AT_ONCE,
        gradient_accumulation_steps=rows_a_step(ours) if packing else DOCUMENTS_A_STEP // PADDED_AT_ONCE,
        packing=packing, max_length=ROW_TOKENS,
        learning_rate=ours.session.config.learning_rate, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0,
        max_grad_norm=ours.session.config.max_grad_norm, optim="adamw_torch_fused", adam_beta2=0.999, adam_epsilon=1e-8,
        use_cpu=True, bf16=False, activation_checkpointing=False, dataloader_num_workers=0,
        train_sampling_strategy="sequential", logging_strategy="no", save_strategy="no", eval_strategy="no",
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(ours.session.config.model, dtype=torch.float32)
    trainer = Counting(
        model, settings, train_dataset=table, processing_class=ours.prepared.encoder.tokenizer, callbacks=[Turns()]
    )
    assert not any(module.training and getattr(module, "p", 0) for module in model.modules())
    trainer.train()
    while len(found["ours"]) < steps:
        take_ours()
    return {side: taken[1:] for side, taken in found.items()}


def show(found: dict[str, list[list[float]]]) -> None:
    """The last step of each side, on stderr."""
    words = [f"{side} {taken[-1][0]:.2f} s for {taken[-1][2]:.0f} tokens" for side, taken in found.items() if taken]
    print(f"    {', '.join(words)}", file=sys.stderr, flush=True)


def rows_a_step(ours: Ours) -> int:
    """TRL's packed rows that hold the documents of one of our steps, on average."""
    from training.core.documents import fill_rows

    lengths = list(ours.prepared.train.lengths)
    rows = len(fill_rows(lengths, capacity=ROW_TOKENS))
    return max(1, round(rows * DOCUMENTS_A_STEP / len(lengths)))


# --- in a process of its own ------------------------------------------------------------------------------------------


def run_child(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    child = [sys.executable, "-m", "benchmarks.sft", "--child", part, f"--model={options.model}",
             f"--rounds={options.rounds}", f"--threads={options.threads}"]  # fmt: skip
    child += [f"--lengths={options.lengths}"] if options.lengths else []
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(child, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(options: argparse.Namespace) -> None:
    """Runs in the child: prepares the recipe, measures, prints one JSON line."""
    import torch

    torch.set_num_threads(options.threads)
    count = DOCUMENTS_A_STEP * (1 + options.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = folder / "documents.jsonl"
        lengths = (
            lengths_of(options.lengths, model=options.model, count=count) if options.lengths else drawn_lengths(count)
        )
        write_documents(data, lengths, model=options.model)
        ours = Ours.prepare(options.model, data, folder / "ours")
        assert len(ours.prepared.train) == count
        found = run_in_turn(ours, folder / "trl", packing=options.child == "packed")
    print(json.dumps(found))


def rates(steps: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Response tokens per wall second and per processor second, over all steps together."""
    wall, processor, tokens = (sum(column) for column in zip(*steps, strict=True))
    return tokens / wall, tokens / processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder (SmolLM2-135M from its wheel)")
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of 8 documents")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides")
    parser.add_argument("--lengths", type=Path, help="native JSONL to take lengths from")
    parser.add_argument("--only", choices=PARTS, help="TRL without packing, or with it")
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
        print(f"\nResponse tokens learned per second, {options.rounds} steps of {DOCUMENTS_A_STEP} documents in turn")
        print(f"{'TRL':>16} {'TRL':>9} {'ours':>9} {'faster':>8} {'in CPU time':>12}")
        for part in [options.only] if options.only else PARTS:
            found = run_child(part, options)
            trl, ours = rates(found["trl"]), rates(found["ours"])
            name = "without packing" if part == "plain" else "with packing"
            figures = f"{trl[0]:>9.1f} {ours[0]:>9.1f} {ours[0] / trl[0]:>7.2f}x {ours[1] / trl[1]:>11.2f}x"
            print(f"{name:>16} {figures}", flush=True)


if __name__ == "__main__":
    main()
