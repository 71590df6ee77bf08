"""One frozen base for four models: adapters ``policy``, ``value`` and ``reward``, and the reference as none of them.

PPO needs a policy, the policy before training, a value model and a reward model. Where the reward model was trained as
a LoRA adapter on the very base that the policy is trained on, the four differ by a few per cent of their weights. Each
view chooses its adapter for its own forward alone (see ``adapters``); the base is never merged into nor written to,
which ``check_base`` proves by a hash.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from training.core.adapters import is_of_adapter, use_adapter
from training.core.distributed import whole_tensor
from training.core.errors import TrainingError, UsageError
from training.core.files import model_fingerprint, read_json
from training.core.language import LanguageModel
from training.core.modeling import HEAD, RewardModel, load_tokenizer
from training.core.packing import PackedRows
from training.core.randomness import derive_seed
from training.core.runfolder import read_run
from training.core.saving import MEAN_KEY, SCALE_KEY, THRESHOLDS_KEY, TIES_KEY
from training.core.scorer import Scorer
from training.core.tokens import ChatEncoder, settle_pad_token

POLICY, VALUE, REWARD = "policy", "value", "reward"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."


@dataclass
class TrunkScores(RewardModel):
    """A reward model that lives in a language model's trunk: an adapter and a head of its own."""

    name: str
    own_head: nn.Linear

    @property
    def head(self) -> nn.Module:
        """The linear layer to the score."""
        return self.own_head

    def score(self, rows: PackedRows) -> Tensor:
        """Scores (N,) in float32, as ``RewardModel.score``."""
        with use_adapter(self.whole, self.name):
            return super().score(rows)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trained parameters by name, in a fixed order: of its adapter and its head."""
        for name, value in self.whole.named_parameters():
            if value.requires_grad and is_of_adapter(name, self.name):
                yield name, value
        for name, value in self.own_head.named_parameters():
            if value.requires_grad:
                yield f"{HEAD}.{name}", value


@dataclass
class SharedTrunk:
    """Views of one base, to be used in any order and nested.

    Attributes:
        policy: trained; its ``reference()`` is the same as ``reference``.
        reference: the base without adapter.
        value: begins as the reward model and is trained.
        reward: as its run left it; its scores are those of the run's saved model.
        score_mean: what our loaders subtract from the reward model's scores.
        base_hash: of the base's weights at the start.
    """

    policy: LanguageModel
    reference: LanguageModel
    value: TrunkScores
    reward: TrunkScores
    score_mean: float
    base_hash: str

    def check_base(self) -> None:
        """Compare the base with what it was. Of a sharded model all processes call it.

        Raises:
            TrainingError: a weight has changed.
        """
        if hash_base(self.policy.whole) != self.base_hash:
            raise TrainingError("the shared base has changed during training: its models cannot be trusted")


def reward_run_of(name: str | Path) -> Path:
    """The run's folder, of itself or of the model inside it."""
    folder = Path(name)
    return folder.parent if folder.name == "model" and not (folder / "run.json").exists() else folder


def refusal(model: str, reward_run: Path, *, lora_rank: int) -> str | None:
    """Why policy and reward model cannot share a trunk, in words, or None.

    Args:
        model: the policy's folder or hub id.
        reward_run: the folder of a run of our reward recipe, or the model in it.
        lora_rank: of the policy; 0 trains all weights.
    """
    folder = reward_run_of(reward_run)
    run = read_run(folder)
    if lora_rank == 0:
        return "the policy trains all its weights (no --lora-rank)"
    if run is None or run.get("recipe") != "reward":
        return f"{reward_run} is no run of the reward recipe"
    config = run.get("config") or {}
    if not config.get("lora_rank"):
        return "the reward model was trained with all its weights"
    if config.get("ensemble", 1) > 1:
        return "the reward model is an ensemble"
    if not (folder / "adapter" / ADAPTER_WEIGHTS).is_file() or not (folder / "model" / "config.json").is_file():
        return f"the run in {folder} has not come to its end"
    if run.get("model_fingerprint") != model_fingerprint(model):
        return f"the reward model was trained on another base ({config.get('model')})"
    return None


def make_shared_trunk(base: LanguageModel, *, lora_rank: int, seed: int, reward_run: Path) -> SharedTrunk:
    """Freeze a language model and put the adapters on it. ``base`` itself is not to be used afterwards.

    Call it where ``refusal`` has nothing to say, after everything that changes the base (pad token), before sharding.

    Raises:
        UsageError: the run's weights do not fit the base, or were trained on other weights of the same shape.
    """
    from peft import LoraConfig, TaskType, get_peft_model  # weight: see ``modeling.add_lora``

    from training.core.fused_lora import fuse

    folder = reward_run_of(reward_run)
    refuse_other_base(base.whole, folder / "model", load_lora_config(folder / "adapter"))
    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=lora_rank, lora_alpha=2 * lora_rank, lora_dropout=0.0,
        target_modules="all-linear",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "lora"))
        adapter = get_peft_model(base.whole, settings, adapter_name=POLICY)
        for name in (VALUE, REWARD):
            adapter.add_adapter(name, load_lora_config(folder / "adapter"))
    fuse(base.whole)
    weights = load_file(folder / "adapter" / ADAPTER_WEIGHTS)
    for name in (VALUE, REWARD):
        fill_adapter(base.whole, name, weights)
    for name, value in base.whole.named_parameters():
        value.requires_grad_(is_of_adapter(name, POLICY) or is_of_adapter(name, VALUE))
    return _views(base, adapter, weights, read_json(folder / "model" / "config.json"))


def _views(base: LanguageModel, adapter: Any, weights: dict[str, Tensor], config: dict[str, Any]) -> SharedTrunk:
    whole, device, dtype = base.whole, base.device, base.autocast_dtype
    scores = {
        name: TrunkScores(whole, adapter, device, dtype, name, make_head(weights, trained=name == VALUE).to(device))
        for name in (VALUE, REWARD)
    }
    return SharedTrunk(
        policy=LanguageModel(whole, adapter, device, dtype, base.shape, POLICY),
        reference=LanguageModel(whole, adapter, device, dtype, base.shape, None),
        value=scores[VALUE],
        reward=scores[REWARD],
        score_mean=float(config.get(MEAN_KEY, 0.0)),
        base_hash=hash_base(whole),
    )


def load_lora_config(folder: Path) -> Any:
    """The adapter's own settings, for a language model: without a head to be saved beside it."""
    from peft import LoraConfig, TaskType

    settings = LoraConfig.from_pretrained(str(folder))
    settings.task_type, settings.modules_to_save, settings.inference_mode = TaskType.CAUSAL_LM, None, False
    return settings


@torch.no_grad()
def fill_adapter(whole: Any, adapter: str, weights: dict[str, Tensor]) -> None:
    """Copy saved LoRA weights into an adapter, all of them into all of it.

    Raises:
        UsageError: one is missing, left over, or of another shape.
    """
    saved = {name.removeprefix(PEFT_PREFIX): value for name, value in weights.items() if "lora_" in name}
    for name, value in whole.named_parameters():
        if not is_of_adapter(name, adapter):
            continue
        found = saved.pop(re.sub(rf"\.(lora_[AB])\.{adapter}\.", r".\1.", name), None)
        if found is None or found.shape != value.shape:
            raise UsageError(f"the reward model's adapter does not fit the policy's base: {name}")
        value.copy_(found)
    if saved:
        raise UsageError(f"the reward model's adapter does not fit the policy's base: {min(saved)} is left over")


def make_head(weights: dict[str, Tensor], *, trained: bool) -> nn.Linear:
    """The score head among saved adapter weights."""
    weight = weights[f"{PEFT_PREFIX}{HEAD}.weight"]
    bias = weights.get(f"{PEFT_PREFIX}{HEAD}.bias")
    head = nn.Linear(weight.shape[1], 1, bias=bias is not None, dtype=torch.float32)
    with torch.no_grad():
        head.weight.copy_(weight)
        if bias is not None:
            head.bias.copy_(bias)
    return head.requires_grad_(trained)


def refuse_other_base(whole: Any, merged: Path, settings: Any) -> None:
    """Compare all weights that the reward run left alone with those in memory, as far as types are equal.

    Raises:
        UsageError: they differ, though names, sizes and fingerprint were those of the same base.
    """
    own = dict(whole.named_parameters())
    targets = settings.target_modules
    adapted = [targets] if isinstance(targets, str) else [re.escape(target) for target in targets]
    pattern = re.compile(rf"(.*\.)?({'|'.join(adapted)})\.weight")
    compared = 0
    for path in sorted(merged.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in set(file.keys()) & set(own):
                if pattern.fullmatch(name) or own[name].dtype != torch.float32:
                    continue
                saved, here = file.get_tensor(name), own[name].detach().cpu()
                rows = min(len(saved), len(here))  # a pad token may have been added
                if not torch.equal(saved[:rows], here[:rows]):
                    raise UsageError(f"the reward model was trained on another base: {name} differs")
                compared += 1
    if not compared and any(value.dtype == torch.float32 for value in own.values()):
        raise UsageError("the reward model's saved weights have no name in common with the policy's base")


def hash_base(whole: Any) -> str:
    """SHA-256 of all weights that are of no adapter, by name and bits. Of a sharded model all processes call it."""
    digest = hashlib.sha256()
    for name, value in whole.named_parameters():
        if "lora_" not in name:
            kept = whole_tensor(value)
            assert kept is not None
            digest.update(name.encode())
            digest.update(kept.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def trunk_scorer(trunk: SharedTrunk, reward_run: Path, *, show_thinking: bool) -> Scorer:
    """The trunk's reward model with the tokenizer, zero and scale of its run, in place of ``scorer.load_scorer``.

    Raises:
        UsageError: the run's tokenizer cannot be used.
    """
    folder = reward_run_of(reward_run) / "model"
    config = read_json(folder / "config.json")
    tokenizer = load_tokenizer(str(folder))
    encoder = ChatEncoder(tokenizer, show_thinking=show_thinking)
    return Scorer(
        model=trunk.reward,
        tokenizer=tokenizer,
        encoder=encoder,
        pad_id=settle_pad_token(encoder, embedding_rows=trunk.policy.whole.get_input_embeddings().num_embeddings),
        mean=trunk.score_mean,
        scale=float(config.get(SCALE_KEY, 1.0)),
        thresholds=dict(config.get(THRESHOLDS_KEY) or {}),
        ties=str(config.get(TIES_KEY, "skip")),
    )
