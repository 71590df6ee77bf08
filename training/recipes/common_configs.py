"""The flags that recipes share. Standard library only."""

from dataclasses import dataclass
from typing import TypeVar

from training.recipes.settings import Settings, setting

Config = TypeVar("Config", bound="BaseConfig")


@dataclass(frozen=True, kw_only=True)
class BaseConfig(Settings):
    """The flags of everything that forwards models over a file. ``affects_results`` False: a resume may change it."""

    data: str = setting(help="JSONL file in the native format (a snapshot)", affects_results=False)
    output: str = setting(help="folder to write, empty unless --resume", affects_results=False)
    seed: int = setting(0, help="every random draw derives from it", minimum=0, maximum=2**63 - 1)
    micro_batch_tokens: int = setting(
        2048,
        help="tokens forwarded at once, padding included; changes memory only, and is halved when memory runs out",
        unit="tokens",
        minimum=1,
        affects_results=False,
    )
    dtype: str = setting(
        "auto",
        help="arithmetic of the forward pass; weights and optimiser are always float32 (auto: float32 on CPU, "
        "bfloat16 on CUDA)",
        choices=("auto", "float32", "bfloat16"),
    )
    device: str = setting("auto", help="where to compute (auto: CUDA if there is one)", choices=("auto", "cpu", "cuda"))
    max_length: int = setting(
        2048, help="longest prompt + response; longer ones are dropped and counted, never cut", unit="tokens", minimum=8
    )
    thinking: str = setting(
        "hide", help="whether a response's thinking is part of what is scored", choices=("hide", "show")
    )
    resume: bool = setting(False, help="go on from the newest good checkpoint in --output", affects_results=False)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(BaseConfig):
    """The flags of what is about one model."""

    model: str = setting(help="model folder or hub id to start from")


@dataclass(frozen=True, kw_only=True)
class CommonConfig(ModelConfig):
    """The flags that every training recipe has."""

    epochs: int = setting(1, help="passes over the training prompts", unit="passes", minimum=1)
    max_steps: int | None = setting(
        None, help="train this many steps instead of --epochs; also fixes the schedule", unit="steps", minimum=1
    )
    stop_after: int | None = setting(
        None,
        help="stop with a checkpoint after this step; the schedule is left alone",
        unit="steps",
        minimum=1,
        affects_results=False,
    )
    batch_size: int = setting(8, help="prompts per optimiser step, over all processes", unit="prompts", minimum=1)
    learning_rate: float = setting(2e-5, help="peak learning rate", above=0)
    warmup: float = setting(0.05, help="share of the steps with a rising rate", unit="share", minimum=0, maximum=1)
    schedule: str = setting(
        "cosine", help="course of the learning rate after the warm-up", choices=("cosine", "linear", "constant")
    )
    weight_decay: float = setting(0.0, help="decoupled weight decay on matrices", minimum=0)
    max_grad_norm: float = setting(1.0, help="gradients are scaled down to this norm", above=0)
    lora_rank: int = setting(0, help="rank of the LoRA adapter; 0 trains all weights", minimum=0, maximum=1024)
    gradient_checkpointing: bool = setting(
        False, help="recompute activations in the backward pass: less memory, slower", affects_results=False
    )
    shard: bool = setting(
        False,
        help="split weights, gradients and optimiser over the processes (FSDP2), for models that one device can hold "
        "but not train; started by torchrun",
        affects_results=False,
    )
    checkpoint_every: int = setting(
        10, help="steps between checkpoints (one is also due every 10 minutes)", unit="steps", minimum=1,
        affects_results=False,
    )  # fmt: skip
    keep_checkpoints: int = setting(
        2, help="checkpoints kept, the newest first", unit="checkpoints", minimum=1, affects_results=False
    )
    log_every: int = setting(
        1, help="steps between log lines (metrics.jsonl has every step)", unit="steps", minimum=1, affects_results=False
    )
    evaluate_every: int | None = setting(
        None, help="steps between validations (unset: after every epoch)", unit="steps", minimum=1
    )
    evaluate_split: str = setting(
        "validation",
        help="split that the report adds to validation; test is read only when asked here",
        choices=("validation", "test"),
    )
