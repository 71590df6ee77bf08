"""The settings of every recipe, in one place for whoever draws a form or reads flags. Standard library only."""

from training.recipes.common_configs import BaseConfig, CommonConfig, Config
from training.recipes.policy_configs import DpoConfig, PpoConfig, SftConfig
from training.recipes.reward_configs import EvaluateRewardConfig, RewardConfig
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
    "RECIPES",
    "BaseConfig",
    "CommonConfig",
    "Config",
    "ConfigError",
    "DpoConfig",
    "EvaluateRewardConfig",
    "FieldDescription",
    "PpoConfig",
    "RewardConfig",
    "SftConfig",
    "Value",
    "build",
    "describe",
    "differences",
    "flag_name",
    "setting",
    "to_arguments",
    "to_values",
]

# What the web application offers to start.
RECIPES: dict[str, type[CommonConfig]] = {"reward": RewardConfig}
