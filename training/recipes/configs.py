"""The settings of every recipe, in one place for whoever draws a form or reads flags. Standard library only."""

from training.core.errors import UsageError
from training.core.reward_sources.grammar import parse_reward
from training.recipes.common_configs import BaseConfig, CommonConfig, Config, ModelConfig
from training.recipes.policy_configs import DpoConfig, PpoConfig, SftConfig
from training.recipes.presets import PRESETS, Preset, preset_named
from training.recipes.reward_configs import EvaluateRewardConfig, RewardConfig
from training.recipes.sampling_configs import AnsweringConfig, EvaluatePolicyConfig, SampleConfig
from training.recipes.settings import (
    ConfigError,
    FieldDescription,
    Value,
    build,
    describe,
    differences,
    flag_name,
    setting,
    to_arguments,
    to_values,
)

__all__ = [
    "AnsweringConfig",
    "PRESETS",
    "RECIPES",
    "BaseConfig",
    "CommonConfig",
    "Config",
    "ConfigError",
    "DpoConfig",
    "EvaluatePolicyConfig",
    "EvaluateRewardConfig",
    "FieldDescription",
    "ModelConfig",
    "PpoConfig",
    "Preset",
    "RewardConfig",
    "SampleConfig",
    "SftConfig",
    "Value",
    "build",
    "describe",
    "differences",
    "flag_name",
    "preset_named",
    "reward_kind",
    "setting",
    "to_arguments",
    "to_values",
]

# What the web application offers to start, by the recipe's name.
RECIPES: dict[str, type[BaseConfig]] = {
    "reward": RewardConfig,
    "sft": SftConfig,
    "dpo": DpoConfig,
    "ppo": PpoConfig,
    "evaluate_reward": EvaluateRewardConfig,
    "evaluate_policy": EvaluatePolicyConfig,
    "sample": SampleConfig,
}


def reward_kind(text: str) -> tuple[str, str]:
    """KIND and ARG of a ``--reward``; ("", "") if it is none."""
    try:
        spec = parse_reward(text)
    except UsageError:
        return "", ""
    return spec.kind, spec.argument
