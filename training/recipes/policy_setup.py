"""What ``recipes.sft`` and ``recipes.dpo`` make at their start alike: a language model with its optimizer."""

from dataclasses import dataclass

import torch
from torch import nn

from training.core.adapters import recompute_alike
from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel, add_language_lora, load_language_model
from training.core.memory import logit_bytes, peak_bytes
from training.core.modeling import choose_autocast, load_of, make_optimizer, set_pad_token
from training.core.scoring import Layout
from training.core.sharding import shard_model
from training.core.tokens import ChatEncoder, settle_pad_token
from training.recipes.configs import CommonConfig, Config
from training.recipes.launch import Session

PACKING_TOLERANCE = 1e-4


@dataclass
class Learner:
    """A model on its way; ``parameters`` are the trained ones in the optimizer's order."""

    model: LanguageModel
    optimizer: torch.optim.Optimizer
    parameters: dict[str, nn.Parameter]

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        self.optimizer.zero_grad(set_to_none=True)


def load_policy(session: Session[Config], encoder: ChatEncoder, *, bare: bool = False) -> tuple[LanguageModel, int]:
    """The model of --model with its LoRA layers, not sharded yet, and the pad id, which is settled by this.

    Args:
        bare: without LoRA layers, whatever --lora-rank says.

    Raises:
        UsageError: a model that cannot be used.
    """
    config = session.config
    assert isinstance(config, CommonConfig)
    autocast = choose_autocast(config.dtype, session.device)
    model = load_language_model(config.model, device=session.device, autocast_dtype=autocast)
    embedding_rows = model.whole.get_input_embeddings().num_embeddings
    pad_id = settle_pad_token(encoder, embedding_rows=embedding_rows)
    set_pad_token(model, pad_id)
    if config.lora_rank and not bare:
        model = add_language_lora(model, rank=config.lora_rank, seed=config.seed)
    if config.gradient_checkpointing:
        recompute_alike(model.whole)
    model.whole.train()
    return model, pad_id


def make_learner(session: Session[Config], model: LanguageModel) -> Learner:
    """The optimizer of a model that is otherwise ready; shards it if --shard says so."""
    config = session.config
    assert isinstance(config, CommonConfig)
    if config.shard:
        shard_model(model, session.world)
    optimizer, parameters = make_optimizer(
        model.trainable(), learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
    return Learner(model, optimizer, parameters)


def make_budget(session: Session[Config], *, longest: int, share: int = 1) -> MicroBatchBudget:
    """``share`` × --micro-batch-tokens at once; ``longest`` is what cannot be divided."""
    config = session.config
    assert isinstance(config, CommonConfig)
    return MicroBatchBudget(
        tokens=share * config.micro_batch_tokens,
        floor=longest,
        world=session.world,
        device=session.device,
        sharded=config.shard,
        say=session.say,
    )


def describe_model(session: Session[Config], model: LanguageModel, encoder: ChatEncoder, *, longest: int) -> None:
    """Device, arithmetic, sizes and template, before the first step."""
    load = load_of(model)
    tokens = max(session.config.micro_batch_tokens, longest)
    arithmetic = str(model.autocast_dtype).removeprefix("torch.")
    peak = peak_bytes(load, tokens=tokens) + logit_bytes(model.head.out_features, tokens=tokens)
    session.say(f"device {model.device}, weights float32, forward {arithmetic}, {session.world.size} process(es)")
    session.say(f"training {load.trained:,} of {load.weights:,} parameters, about {peak / 2**30:.1f} GiB at the peak")
    session.say(f"chat template: {encoder.template_name}; pad {encoder.tokenizer.pad_token!r}")


def facts_of_model(model: LanguageModel, encoder: ChatEncoder, layout: Layout, *, steps: int) -> dict[str, object]:
    """What ``run.json`` keeps of the decisions made at the start."""
    return {
        "device": str(model.device),
        "forward_dtype": str(model.autocast_dtype).removeprefix("torch."),
        "chat_template": encoder.template_name,
        "packed": layout.packed,
        "steps": steps,
    }
