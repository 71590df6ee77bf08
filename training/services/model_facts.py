"""What this machine's disk says of the models that a run names: how large they are, how they read text."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from training import base_models
from training.core.model_sizes import ModelSize, SizeUnknown, gated_decoder, read_model_size, size_of
from training.models import Run
from training.selectors_store import readable_folder
from training.services.run_inputs import Named

TOKENIZER, TEMPLATE, TOKENIZER_CONFIG = "tokenizer.json", "chat_template.jinja", "tokenizer_config.json"
# How texts are padded and cut decides no ids; the pad token is one that we may have added.
OF_NO_MATTER = ("padding", "truncation")
OUR_PAD = "<|plackett_pad|>"


@dataclass(frozen=True, slots=True)
class Facts:
    """A model's folder on this machine: None where it is not here yet, or is the hub's; and its size or why not."""

    folder: Path | None
    size: ModelSize | None
    why_unknown: str = ""


def facts_of(named: Named) -> Facts:
    """What is known of a model; one that a run is to make is as large as that which the run starts from."""
    version = named.version
    run = named.run
    if version is None and run is not None:
        first = Named(run.base_model, run.base_version, _awaited_by(run))
        return facts_of(first)
    if version is not None:
        return _of_folder(readable_folder(version) or version.path)
    if (built_in := base_models.BUILT_IN.get(named.name)) is not None:
        if base_models.is_model_folder(built_in.folder):
            return _of_folder(built_in.folder)
        return Facts(None, size_of(built_in.config, gated_decoder(built_in.config)))
    if base_models.HUB_ID.fullmatch(named.name):
        return Facts(
            None, None, _("%(model)s is not on this server, so its size is not known.") % {"model": named.name}
        )
    return _of_folder(base_models.models_root() / named.name)


def _awaited_by(run: Run) -> Run | None:
    number = base_models.run_id(run.base_model)
    return None if number is None else Run.objects.filter(pk=number, project=run.project_id).first()


def _of_folder(folder: Path) -> Facts:
    try:
        return Facts(folder, _size_at(folder, _mark(folder)))
    except SizeUnknown as unknown:
        words = _("How large the model is cannot be read: %(reason)s.")
        return Facts(folder, None, words % {"reason": str(unknown)})


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in the folder brings a chat template of its own."""
    return (folder / TEMPLATE).is_file() or bool(_json(folder / TOKENIZER_CONFIG).get("chat_template"))


def read_alike(one: Path, other: Path) -> bool:
    """Whether two models make the same tokens of the same conversation, as far as their folders say."""
    return _reading(one, _mark(one)) == _reading(other, _mark(other))


def trunk_refusal(*, base: Named, reward: Named | None, lora_rank: object, trunk: object) -> str:
    """Why policy, value and reward model of a PPO run cannot share one base, in words; "" if they can."""
    made_by = reward and (reward.run or (reward.version and reward.version.run))
    if trunk == "separate":
        return _("trunk is set to separate")
    if not lora_rank:
        return _("the policy trains all its weights; set a LoRA rank")
    if not isinstance(made_by, Run) or made_by.kind != Run.Kind.REWARD:
        return _("there is no reward model that a run of this server made")
    if not made_by.config.get("lora_rank"):
        return _("the reward model was trained without LoRA")
    if made_by.config.get("ensemble", 1) != 1:
        return _("the reward model is an ensemble")
    if not _same_model(base, made_by):
        return _("the reward model was trained on another model than the policy starts from")
    return ""


def _same_model(base: Named, reward_run: Run) -> bool:
    if base.version is not None and reward_run.base_version_id is not None:
        return base.version.pk == reward_run.base_version_id
    return base.name == reward_run.base_model


# --- files -----------------------------------------------------------------------------------------------------------


def _mark(folder: Path) -> tuple[Any, ...]:
    """Changes when the files that are read here do: what was read once is kept by it."""
    names = (*sorted(folder.glob("*.safetensors")), *(folder / name for name in ("config.json", TOKENIZER, TEMPLATE)))
    found = []
    for path in names:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((path.name, status.st_size, status.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=64)
def _size_at(folder: Path, mark: tuple[Any, ...]) -> ModelSize:
    return read_model_size(folder)


@lru_cache(maxsize=64)
def _reading(folder: Path, mark: tuple[Any, ...]) -> tuple[str, str]:
    tokenizer = _json(folder / TOKENIZER)
    added = [one for one in tokenizer.get("added_tokens") or () if one.get("content") != OUR_PAD]
    backend = {key: value for key, value in tokenizer.items() if key not in OF_NO_MATTER} | {"added_tokens": added}
    try:
        template = (folder / TEMPLATE).read_text()
    except OSError:
        template = str(_json(folder / TOKENIZER_CONFIG).get("chat_template") or "")
    return hashlib.sha256(json.dumps(backend, sort_keys=True).encode()).hexdigest(), template


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
