"""The peer of ``benchmarks.ppo``: PPO steps of TRL 1.12.0, the last release with PPO, in a process of its own.

    pip install --no-deps --target DIR trl==1.12.0
    PYTHONPATH=DIR python -m benchmarks.ppo_peer --model FOLDER --part full
    PYTHONPATH=DIR python -m benchmarks.ppo_peer --model FOLDER --part lora --micro-batch 4

``PPOTrainer.train`` in float32 on CPU: by default one step of 32 prompts of 64 tokens, responses of exactly 64 (no stop
token: an end token that is sampled is a token like others), 4 inner epochs. With what is fastest for it here: no
gradient checkpointing, the fused AdamW, no logging, saving or sample tables. A step of two short prompts goes before,
at a rate of 0, so that libraries have allocated what they keep.

* ``full``: all weights of the policy and of a value model; a copy as reference; a reward model. Four models.
* ``lora``: ``peft_config`` of rank 16 on all linear layers of the policy, whose base is the reference. TRL puts no LoRA
  on the value model: all its weights are trained.

Prints one line of JSON: seconds and episodes per second of the steps (all of a step: generation, scoring, reference,
epochs), of that the seconds of generation, the peak of resident memory over them (as Linux counts it, the whole
process) and what was resident before, and of each step the mean score of its responses.
"""

import argparse
import ctypes
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.reward import memory_now

LORA_RANK = 16


def draw_prompts(model: str, *, count: int, length: int) -> list[list[int]]:
    """Prompts of ordinary tokens, drawn from a fixed seed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    special = set(tokenizer.all_special_ids)
    ordinary = [number for number in range(len(tokenizer)) if number not in special]
    draw = random.Random(0)
    return [draw.choices(ordinary, k=length) for _ in range(count)]


def make_reward_model(model: str, folder: Path) -> str:
    """A random head on the same trunk, as a folder."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    whole = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
    torch.nn.init.normal_(whole.score.weight, std=(whole.config.hidden_size + 1) ** -0.5)
    whole.save_pretrained(folder)
    return str(folder)


class Peer:
    """TRL's models, and trainers over them; a second trainer goes on with the weights of the first."""

    def __init__(self, options: argparse.Namespace, reward_model: str, scratch: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

        self.options, self.scratch = options, scratch
        self.tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
        self.policy = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
        self.value, self.reward = (
            AutoModelForSequenceClassification.from_pretrained(reward_model, num_labels=1, dtype=torch.float32)
            for _ in range(2)
        )
        self.reference = None
        if options.part == "full":
            self.reference = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)

    def trainer(self, prompts: list[list[int]], *, batch: int, rate: float, **sizes: Any) -> Any:
        """A PPOTrainer whose steps take ``batch`` of the prompts each, once over all of them."""
        from datasets import Dataset
        from peft import LoraConfig, PeftModel, TaskType
        from trl.experimental.ppo import PPOConfig, PPOTrainer

        at_once = min(batch, self.options.micro_batch)
        settings = PPOConfig(
            output_dir=str(self.scratch), total_episodes=len(prompts), per_device_train_batch_size=at_once,
            gradient_accumulation_steps=batch // at_once,
            local_rollout_forward_batch_size=min(batch, self.options.rollout_batch or at_once),
            learning_rate=rate, lr_scheduler_type="constant", optim="adamw_torch_fused", temperature=1.0,
            num_mini_batches=1, num_sample_generations=0, seed=0, bf16=False, use_cpu=True, report_to="none",
            gradient_checkpointing=False, save_strategy="no", logging_strategy="no", disable_tqdm=True, **sizes,
        )  # fmt: skip
        lora = None
        if self.options.part == "lora" and not isinstance(self.policy, PeftModel):
            lora = LoraConfig(
                task_type=TaskType.CAUSAL_LM, r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0,
                target_modules="all-linear",
            )  # fmt: skip
        found = PPOTrainer(
            settings, self.tokenizer, self.policy, self.reference, self.reward,
            Dataset.from_list([{"input_ids": prompt} for prompt in prompts]), self.value, peft_config=lora,
        )  # fmt: skip
        # At the last batch of a loader accelerate would step after every micro-batch.
        found.accelerator.gradient_state.plugin_kwargs["sync_with_dataloader"] = False
        assert not found.policy_model.is_gradient_checkpointing
        self.policy = found.policy_model
        return found

    def mean_score(self, prompts: list[list[int]], options: argparse.Namespace) -> float:
        """Of responses to all prompts by the policy as it is now, by the reward model."""
        found = []
        with torch.no_grad():
            for start in range(0, len(prompts), options.micro_batch):
                ids = torch.tensor(prompts[start : start + options.micro_batch])
                whole = self.policy.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
                    top_p=1.0, max_new_tokens=options.response_tokens, eos_token_id=None,
                    pad_token_id=self.tokenizer.pad_token_id,
                )  # fmt: skip
                hidden = self.reward.base_model(input_ids=whole, use_cache=False).last_hidden_state[:, -1]
                found += self.reward.score(hidden).squeeze(-1).tolist()
        return sum(found) / len(found)


@contextmanager
def generation_clock(seconds: list[float]) -> Iterator[None]:
    """Inside, the time that TRL spends generating is appended to ``seconds``."""
    from trl.experimental.ppo import ppo_trainer

    plain: Callable[..., Any] = ppo_trainer.batch_generation

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        found = plain(*arguments)
        seconds.append(time.perf_counter() - start)
        return found

    ppo_trainer.batch_generation = timed
    try:
        yield
    finally:
        ppo_trainer.batch_generation = plain


def note_figures(trainer: Any) -> list[dict[str, float]]:
    """A list to which TRL's figures of each step are appended, instead of being logged."""
    rows: list[dict[str, float]] = []
    trainer.log = lambda figures, *_, **__: rows.append(dict(figures))
    return rows


def measure(peer: Peer, prompts: list[list[int]], options: argparse.Namespace) -> dict[str, Any]:
    """A short step to warm up, then the steps."""
    short = [prompt[:8] for prompt in prompts[:2]]
    warm = peer.trainer(short, batch=2, rate=0.0, response_length=4, num_ppo_epochs=1)
    note_figures(warm)
    warm.train()
    del warm
    trainer = peer.trainer(
        prompts, batch=options.prompts, rate=options.learning_rate, response_length=options.response_tokens,
        num_ppo_epochs=options.inner_epochs,
    )  # fmt: skip
    rows = note_figures(trainer)
    ctypes.CDLL(None).malloc_trim(0)
    before = memory_now("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    generating: list[float] = []
    start = time.perf_counter()
    with generation_clock(generating):
        trainer.train()
    seconds = time.perf_counter() - start
    return {
        "part": options.part, "steps": options.steps, "episodes": len(prompts), "seconds": seconds,
        "episodes_per_second": len(prompts) / seconds, "generate_seconds": sum(generating),
        "peak_mb": memory_now("VmHWM"), "before_mb": before,
        "scores": [row["objective/scores"] for row in rows], "kl": [row["objective/kl"] for row in rows],
        "score_after": peer.mean_score(prompts, options),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder of the policy")
    parser.add_argument("--reward-model", help="classifier folder (a random head on the policy's trunk)")
    parser.add_argument("--part", choices=("full", "lora"), required=True, help="all weights, or LoRA on the policy")
    parser.add_argument("--prompt-ids", type=Path, help="JSON list of prompts as lists of ids, steps x prompts of them")
    parser.add_argument("--steps", type=int, default=1, help="PPO steps that are timed together")
    parser.add_argument("--prompts", type=int, default=32, help="prompts per step")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--response-tokens", type=int, default=64, help="tokens of a response, exactly")
    parser.add_argument("--inner-epochs", type=int, default=4, help="epochs over a rollout")
    parser.add_argument("--micro-batch", type=int, default=8, help="responses forwarded and backwarded at once")
    parser.add_argument("--rollout-batch", type=int, help="responses generated and scored at once (the micro-batch)")
    parser.add_argument("--learning-rate", type=float, default=1e-6, help="AdamW's, constant")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    import trl

    assert trl.__version__ == "1.12.0", f"this is TRL {trl.__version__}: see --help"
    with tempfile.TemporaryDirectory() as scratch:
        if options.prompt_ids:
            prompts = json.loads(options.prompt_ids.read_text())[: options.steps * options.prompts]
        else:
            prompts = draw_prompts(options.model, count=options.steps * options.prompts, length=options.prompt_tokens)
        assert len(prompts) == options.steps * options.prompts and options.prompts % options.micro_batch == 0
        reward_model = options.reward_model or make_reward_model(options.model, Path(scratch) / "reward")
        print(json.dumps(measure(Peer(options, reward_model, Path(scratch)), prompts, options)))


if __name__ == "__main__":
    main()
