"""What loading a language model and loading a reward model have in common: safe files, no dropout, one-line errors."""

from typing import Any

import torch
from transformers import AutoConfig

from training.core.errors import UsageError
from training.core.fused_norm import fuse_norms
from training.core.fused_rotary import fuse_rotary
from training.core.halving import first_line


def load_config(name: str, **settings: Any) -> Any:
    """The config of a model folder or hub id, with every dropout at 0.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **settings)
    except Exception as error:  # the loader raises anything from OSError to KeyError
        raise cannot_load(name, error) from None
    for key, value in vars(config).items():
        if isinstance(value, float) and ("dropout" in key or key.endswith("_pdrop")):
            setattr(config, key, 0.0)
    return config


def load_weights(kind: Any, name: str, config: Any, *, dtype: torch.dtype) -> tuple[Any, set[str]]:
    """The model of an ``AutoModelFor…`` class from safetensors files, and the names of the weights that they lack.

    Raises:
        UsageError: there are none, or they do not fit the config.
    """
    try:
        whole, loading = kind.from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=False,
            output_loading_info=True,
        )
    except Exception as error:  # the loader raises anything from OSError to RuntimeError
        raise cannot_load(name, error) from None
    fuse_norms(whole)
    fuse_rotary(whole)
    return whole, set(loading["missing_keys"])


def refuse_missing(name: str, missing: set[str]) -> None:
    """Raise a UsageError if weights are missing: transformers would draw them afresh."""
    if missing:
        raise UsageError(f"cannot load a model from {name}: weights missing, such as {sorted(missing)[0]}")


def cannot_load(name: str, error: Exception) -> UsageError:
    """What is raised where a model cannot be loaded, in one line."""
    return UsageError(f"cannot load a model from {name}: {first_line(error)}")
