"""The end of a policy's training: an ordinary Hugging Face folder, loaded by ``AutoModelForCausalLM`` alone.

Adapters are merged into a copy: the weights in memory stay as they are, so that a policy may be saved in the middle of
its training, and one that shares its trunk with other models leaves them in peace.
"""

import copy
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from training.core.adapters import DEFAULT, tuner_layers
from training.core.files import published_folder, write_json
from training.core.language import LanguageModel


def save_policy(
    model: LanguageModel,
    tokenizer: Any,
    target: Path,
    *,
    card: str,
    adapter: Path | None = None,
    stop_ids: Collection[int] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write the whole, merged model to ``target`` and, with LoRA, the adapter to ``adapter``, each by rename.

    A model that was sharded is gathered before (``sharding.gather_model``), and saved by the main process alone.

    Args:
        model: the policy; of a shared trunk, its view.
        tokenizer: saved beside it, with its chat template; its pad id is the one that goes into the configs.
        card: the README.
        stop_ids: what ends a response when others generate with the model; if None, what ended it before, and the
            tokenizer's own end.
        extra: JSON values by file name.
    """
    tokenizer.padding_side = "left"  # generation goes on at the right
    if model.adapter_name is not None and adapter is not None:
        with published_folder(adapter) as scratch:
            save_adapter(model, scratch)
            tokenizer.save_pretrained(scratch)
    whole = merged_copy(model)
    set_generation_ids(whole, tokenizer, stop_ids)
    with published_folder(target) as scratch:
        whole.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        for name, value in (extra or {}).items():
            write_json(scratch / name, value)


def save_adapter(model: LanguageModel, folder: Path) -> None:
    """Write the model's own adapter as PEFT does, whatever its name is here and whichever others there are."""
    assert model.adapter is not None
    name = str(model.adapter_name)
    model.adapter.save_pretrained(folder, safe_serialization=True, selected_adapters=[name])
    if name != DEFAULT:  # PEFT puts it into a folder of its own
        for path in (folder / name).iterdir():
            shutil.move(path, folder / path.name)
        (folder / name).rmdir()


@torch.no_grad()
def merged_copy(model: LanguageModel) -> Any:
    """The model in plain transformers form, on CPU, with its adapter (if any) merged; weights are shared with the
    model in memory where they are equal."""
    with torch.device("meta"):
        whole = type(model.whole)(copy.deepcopy(model.whole.config))
    # Tied weights stand in the dictionary under both their names.
    whole.load_state_dict(merged_weights(model), strict=True, assign=True)
    whole.tie_weights()
    whole.generation_config = copy.deepcopy(model.whole.generation_config)
    return whole


def merged_weights(model: LanguageModel) -> dict[str, Tensor]:
    """The weights by the names that they have without adapters: W + (α / r) · B A where there is one."""
    layers = {id(layer) for layer in tuner_layers(model.whole)} if model.adapter is not None else set()
    updates = {
        f"{path}.weight": layer.get_delta_weight(model.adapter_name)
        for path, layer in model.whole.named_modules()
        if id(layer) in layers and model.adapter_name is not None
    }
    weights = {}
    for name, value in model.whole.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        update = updates.get(plain)
        weights[plain] = (value if update is None else value + update.to(value.dtype)).cpu()
    return weights


def set_generation_ids(whole: Any, tokenizer: Any, stop_ids: Collection[int] | None) -> None:
    """One pad id and the same ends in config and generation config; nothing else of what the base's folder said about
    sampling, which is not how this model was trained."""
    old = getattr(whole.generation_config, "eos_token_id", None)
    known = old if isinstance(old, list) else [old]
    ends = set(stop_ids) if stop_ids is not None else {*known, tokenizer.eos_token_id} - {None}
    ids = sorted(ends)
    config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ids[0] if len(ids) == 1 else ids or None,
        pad_token_id=tokenizer.pad_token_id,
    )
    whole.generation_config = config
    for each in {id(part): part for part in (whole.config, whole.config.get_text_config())}.values():
        each.pad_token_id, each.eos_token_id = config.pad_token_id, config.eos_token_id
