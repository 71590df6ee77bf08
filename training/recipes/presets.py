"""Named sets of settings to begin with, by kind of run. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings that differ from the defaults, by name, and for what they are."""

    name: str
    label: str
    help: str
    config: Mapping[str, object] = field(default_factory=dict)


TRY = "Try the line"
LORA = "LoRA on one GPU"
WHOLE = "Whole model"
_TRY_HELP = "a few short steps, minutes on a CPU: whether everything is in its place, not whether it learns"
_LORA_HELP = "an adapter of rank 16 on a frozen model: a fraction of the memory, nearly the same result"
_WHOLE_HELP = "all weights, activations computed again in the backward pass: the best result where the memory is there"

_LORA: dict[str, object] = {"lora_rank": 16}
_WHOLE: dict[str, object] = {"lora_rank": 0, "gradient_checkpointing": True}
_SHORT: dict[str, object] = {"max_steps": 10, "lora_rank": 4, "max_length": 512, "micro_batch_tokens": 1024}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "reward": (
        Preset("try", TRY, _TRY_HELP, _SHORT | {"batch_size": 4, "learning_rate": 5e-4}),
        Preset("lora", LORA, _LORA_HELP, _LORA | {"learning_rate": 2e-4, "micro_batch_tokens": 8192}),
        Preset("whole", WHOLE, _WHOLE_HELP, _WHOLE | {"learning_rate": 1e-5, "micro_batch_tokens": 8192}),
        Preset(
            "ties", "Ties and what was left unranked",
            "where annotators used ties and leave the worst unranked: both teach the model, too",
            _LORA | {"learning_rate": 2e-4, "ties": "rao-kupper", "unranked": "below"},
        ),
    ),
    "sft": (
        Preset("try", TRY, _TRY_HELP, _SHORT | {"batch_size": 4, "max_response_length": 32, "sample_prompts": 2}),
        Preset("lora", LORA, _LORA_HELP, _LORA | {"learning_rate": 2e-4, "epochs": 2, "micro_batch_tokens": 8192}),
        Preset("whole", WHOLE, _WHOLE_HELP, _WHOLE | {"learning_rate": 1e-5, "epochs": 2, "micro_batch_tokens": 8192}),
    ),
    "dpo": (
        Preset("try", TRY, _TRY_HELP, _SHORT | {"batch_size": 4, "learning_rate": 1e-5}),
        Preset("lora", LORA, _LORA_HELP, _LORA | {"learning_rate": 1e-5, "micro_batch_tokens": 8192}),
        Preset("whole", WHOLE, _WHOLE_HELP, _WHOLE | {"learning_rate": 5e-7, "micro_batch_tokens": 8192}),
    ),
    "ppo": (
        Preset(
            "try", TRY, _TRY_HELP,
            _SHORT | {"max_steps": 4, "batch_size": 4, "max_response_length": 24, "inner_epochs": 2,
                      "evaluate_every": 4, "evaluation_prompts": 8, "sample_every": 2},
        ),
        Preset(
            "lora", LORA, _LORA_HELP + "; policy, value and a reward model trained with LoRA share one base",
            _LORA | {"learning_rate": 3e-5, "batch_size": 64, "max_response_length": 256, "micro_batch_tokens": 8192},
        ),
        Preset(
            "whole", WHOLE, _WHOLE_HELP,
            _WHOLE | {"batch_size": 64, "max_response_length": 256, "micro_batch_tokens": 8192},
        ),
        Preset(
            "group", "Groups of answers, no value model",
            "GRPO: eight answers to each prompt are compared with one another; for rewards that can be checked",
            _LORA | {"learning_rate": 3e-5, "advantage": "grpo", "samples_per_prompt": 8, "batch_size": 16,
                     "max_response_length": 256, "micro_batch_tokens": 8192},
        ),
    ),
}  # fmt: skip


def preset_named(kind: str, name: str) -> Preset | None:
    """The preset of a kind; None if there is none of this name."""
    return next((one for one in PRESETS.get(kind, ()) if one.name == name), None)
