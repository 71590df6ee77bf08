"""Make the fixtures of ``test_trl.py``: TRL 1.12.0, the last release with PPO, run on a tiny model and fixed rollouts.

    pip install --no-deps --target DIR trl==1.12.0
    PYTHONPATH=DIR python tests/training/parity/make_trl_fixtures.py

``PPOTrainer.train`` itself runs, one rollout and its inner epochs, with the torch and transformers of this
environment. Three of its module's functions are replaced: ``batch_generation`` returns the fixed responses with the
logits of TRL's own forward (as ``generate`` would, at the temperature), ``get_reward`` of the reward model returns the
fixed scores, and ``forward`` notes what the loop holds before it goes on. What is written was computed by TRL's lines.

Beside this file: ``policy/``, ``reference/`` and ``value/`` (the models before), ``settings.json``, and a file of
tensors for each case.
"""

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

HERE = Path(__file__).parent
VOCABULARY, PAD, EOS = 40, 0, 1
PROMPT_LENGTHS = (5, 3, 4, 5, 2, 4)
RESPONSE_LENGTH = 8
# Tokens up to and with the end token; 9: none comes. One place before the last, and the last, are cases of their own.
ENDS = (3, 9, 7, 8, 1, 5)
# Plain gradient descent, at a rate that makes ratios leave the clipping range in the second epoch.
SETTINGS = {
    "temperature": 0.7, "kl_coefficient": 0.2, "gamma": 0.97, "gae_lambda": 0.9, "clip": 0.2, "value_clip": 0.2,
    "value_coefficient": 0.1, "learning_rate": 0.02, "inner_epochs": 2, "pad": PAD, "eos": EOS,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A rollout, and how TRL cuts it up."""

    ends: bool
    micro_batches: int
    missing_eos_penalty: float | None


CASES = {
    "full": Case(ends=False, micro_batches=1, missing_eos_penalty=None),
    "ended": Case(ends=True, micro_batches=1, missing_eos_penalty=1.5),
    "micro_batches": Case(ends=True, micro_batches=2, missing_eos_penalty=1.5),
}


def make_models() -> None:
    """Draw the policy, a reference near it, and a value model, and write them as folders."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.3,
        pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None, num_labels=1,
    )  # fmt: skip
    policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for ours, theirs in zip(reference.parameters(), policy.parameters(), strict=True):
            ours.copy_(theirs + 0.03 * torch.randn_like(theirs))
    value = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    for name, model in (("policy", policy), ("reference", reference), ("value", value)):
        model.save_pretrained(HERE / name)
        (HERE / name / "generation_config.json").unlink(missing_ok=True)
        (HERE / name / "model.safetensors").chmod(0o644)


def draw_rollout(case: Case) -> dict[tuple[int, ...], tuple[list[int], float]]:
    """Per prompt its response (padding behind the end token, as ``generate`` leaves it) and score."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for length, end in zip(PROMPT_LENGTHS, ENDS, strict=True):
        prompt, response = (
            torch.randint(2, VOCABULARY, (count,), generator=generator).tolist() for count in (length, RESPONSE_LENGTH)
        )
        if case.ends and end <= RESPONSE_LENGTH:
            response = [*response[: end - 1], EOS, *[PAD] * (RESPONSE_LENGTH - end)]
        found[tuple(prompt)] = response, 2 * torch.randn((), generator=generator).item()
    return found


@dataclass
class Notes:
    """What TRL's loop held: from the first inner forward on, at each of them, and at its end."""

    rollout: dict[str, torch.Tensor] = field(default_factory=dict)
    micro_batches: list[torch.Tensor] = field(default_factory=list)
    figures: dict[str, torch.Tensor] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


ROLLOUT = ("queries", "responses", "logprobs", "ref_logprobs", "values", "scores", "rewards", "advantages", "returns")
FIGURES = ("pg_loss_stats", "vf_loss_stats", "pg_clipfrac_stats", "vf_clipfrac_stats")


def run_trl(case: Case) -> Notes:
    """One ``PPOTrainer.train`` over one rollout."""
    import trl
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    assert trl.__version__ == "1.12.0", f"this is TRL {trl.__version__}: see the top of this file"
    notes, rollout = Notes(), draw_rollout(case)
    forward, get_reward = ppo_trainer.forward, ppo_trainer.get_reward

    def answer(query: torch.Tensor) -> tuple[list[int], float]:
        return rollout[tuple(token for token in query.tolist() if token != PAD)]

    def fixed_generation(model: Any, queries: torch.Tensor, _: int, pad: int, config: Any) -> Any:
        responses = torch.tensor([answer(query)[0] for query in queries])
        whole = torch.cat([queries, responses], 1)
        logits = forward(model, whole, pad).logits[:, queries.shape[1] - 1 : -1]
        return whole, logits / config.temperature

    def fixed_reward(model: Any, whole: torch.Tensor, pad: int, context: int) -> Any:
        if model is not reward:
            return get_reward(model, whole, pad, context)
        return None, torch.tensor([answer(query)[1] for query in whole[:, :context]]), None

    def noting_forward(model: Any, *arguments: Any) -> Any:
        held = sys._getframe(1).f_locals
        if "mb_query_responses" in held and model is held["model"]:
            notes.micro_batches.append(torch.from_numpy(held["micro_batch_inds"].copy()))
            if not notes.rollout:
                notes.rollout = {name: held[name].clone() for name in ROLLOUT}
        return forward(model, *arguments)

    class Noting(PPOTrainer):  # type: ignore[misc]
        def log(self, *_: Any, **__: Any) -> None:
            held = sys._getframe(1).f_locals
            notes.figures = {name: held[name].clone() for name in FIGURES}

    policy, reference = (AutoModelForCausalLM.from_pretrained(HERE / name) for name in ("policy", "reference"))
    value, reward = (AutoModelForSequenceClassification.from_pretrained(HERE / "value") for _ in range(2))
    with tempfile.TemporaryDirectory() as scratch:
        settings = PPOConfig(
            output_dir=scratch, total_episodes=len(rollout), num_ppo_epochs=SETTINGS["inner_epochs"],
            per_device_train_batch_size=len(rollout) // case.micro_batches,
            gradient_accumulation_steps=case.micro_batches, local_rollout_forward_batch_size=len(rollout),
            learning_rate=SETTINGS["learning_rate"], lr_scheduler_type="constant", optim="sgd",
            response_length=RESPONSE_LENGTH, stop_token="eos", missing_eos_penalty=case.missing_eos_penalty,
            temperature=SETTINGS["temperature"], kl_coef=SETTINGS["kl_coefficient"], gamma=SETTINGS["gamma"],
            lam=SETTINGS["gae_lambda"], cliprange=SETTINGS["clip"], cliprange_value=SETTINGS["value_clip"],
            vf_coef=SETTINGS["value_coefficient"], num_sample_generations=0, seed=0, bf16=False, use_cpu=True,
            gradient_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = Noting(
            settings, make_tokenizer(), policy, reference, reward,
            Dataset.from_list([{"input_ids": list(prompt)} for prompt in rollout]), value,
        )  # fmt: skip
        # The one batch is the last of its loader too, at which accelerate would step after every micro-batch.
        trainer.accelerator.gradient_state.plugin_kwargs["sync_with_dataloader"] = False
        note_weights_after_first_step(trainer, notes)
        ppo_trainer.batch_generation, ppo_trainer.get_reward = fixed_generation, fixed_reward
        ppo_trainer.forward = noting_forward
        try:
            np.random.seed(0)  # of the permutation of each inner epoch
            trainer.train()
        finally:
            ppo_trainer.forward, ppo_trainer.get_reward = forward, get_reward
    # Before the penalty, which TRL takes off in place.
    notes.rollout["drawn_scores"] = torch.tensor([answer(query)[1] for query in notes.rollout["queries"]])
    return notes


def make_tokenizer() -> PreTrainedTokenizerFast:
    """For its pad and end ids, and to pad on the left; no text passes through it."""
    words = {f"w{number}": number for number in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w2")), pad_token=f"w{PAD}", eos_token=f"w{EOS}",
        padding_side="left",
    )  # fmt: skip


def note_weights_after_first_step(trainer: Any, notes: Notes) -> None:
    """Names as in the models' own folders, behind ``policy.`` or ``value.``."""

    def note(*_: Any) -> None:
        if notes.weights:
            return
        model = trainer.accelerator.unwrap_model(trainer.model)
        for part, module in (("policy", model.policy), ("value", model.value_model)):
            notes.weights |= {f"{part}.{name}": value.detach().clone() for name, value in module.named_parameters()}

    trainer.optimizer.optimizer.register_step_post_hook(note)


def main() -> None:
    make_models()
    for name, case in CASES.items():
        notes = run_trl(case)
        epochs, each = int(SETTINGS["inner_epochs"]), case.micro_batches
        order = torch.stack(notes.micro_batches).view(epochs, each, -1)
        tensors = notes.rollout | notes.figures | {"order": order} | notes.weights
        save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / f"{name}.safetensors")
        (HERE / f"{name}.safetensors").chmod(0o644)
        print(name, {key: value.flatten().tolist() for key, value in notes.figures.items()})
    cases = {name: vars(case) for name, case in CASES.items()}
    versions = {"trl": "1.12.0", "torch": torch.__version__, "transformers": transformers.__version__}
    text = json.dumps({"made_with": versions, "settings": SETTINGS, "cases": cases}, indent=2)
    (HERE / "settings.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
