"""What ``recipes.ppo`` makes at its start: the prompts, the models, the documents of PPO-ptx."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.core.conversations import PromptFile, read_prompts
from training.core.errors import UsageError
from training.core.files import model_fingerprint, sha256_of
from training.core.memory import logit_bytes, peak_together
from training.core.modeling import load_of, load_tokenizer
from training.core.records import SPLITS
from training.core.reward_sources.grammar import parse_reward
from training.core.reward_sources.models import models_of
from training.core.runfolder import SAMPLES_NAME, StepFile
from training.core.schedule import Course
from training.core.tokens import ChatEncoder
from training.recipes.configs import PpoConfig
from training.recipes.launch import Session, check_same_run
from training.recipes.ppo_models import Models, check_rewards, make_models
from training.recipes.ppo_ptx import PtxData, load_ptx
from training.recipes.preparing import compute_repeatably, course_of, fingerprints_of, usable_length, words_of
from training.recipes.prompts import PromptData, choose_prompts


@dataclass(frozen=True)
class Inputs:
    """What a run depends on; a resume wants all of it unchanged. ``others``: hashes by the flag that names them."""

    file: PromptFile
    model_fingerprint: str
    others: Mapping[str, str]


@dataclass
class Prepared:
    """All that a run needs from its start to its end."""

    data: PromptData
    encoder: ChatEncoder
    models: Models
    ptx: PtxData | None
    course: Course
    facts: dict[str, Any] = field(default_factory=dict)


def check_inputs(session: Session[PpoConfig]) -> Inputs:
    """Look at everything that the flags name, and see that a resume finds it as it was.

    Raises:
        UsageError: something cannot be used, or differs from what the run began with.
    """
    config = session.config
    file = read_prompts(Path(config.data))
    models = {"--value-model": config.value_model, "--judge": config.judge}
    for text in config.rewards:
        spec = parse_reward(text)
        if spec.kind in ("model", "ensemble"):
            models[f"--reward {text}"] = spec.argument
    members = fingerprints_of(models)
    for flag, found in members.items():
        if flag.startswith("--reward") and set(found) & set(members.get("--judge", ())):
            raise UsageError(f"--judge {config.judge} is what {flag} rewards: a judge is never trained against")
    others = {flag: " ".join(found) for flag, found in members.items()}
    if config.ptx_data is not None and Path(config.ptx_data).is_file():
        others["--ptx-data"] = sha256_of(Path(config.ptx_data))
    fingerprint = model_fingerprint(config.model)
    check_same_run(session, data_sha256=file.sha256, model_fingerprint=fingerprint, others=others)
    return Inputs(file, fingerprint, others)


def prepare(session: Session[PpoConfig], inputs: Inputs) -> Prepared:
    """Encode the prompts and load the models.

    Raises:
        UsageError: no prompt to train on or, with --evaluate-split test, to report on, or a model or a reward that
            cannot be used.
    """
    config = session.config
    compute_repeatably(session.device)
    encoder = ChatEncoder(load_tokenizer(config.model), show_thinking=config.thinking == "show")
    splits = tuple(split for split in SPLITS if split != "test" or config.evaluate_split == "test")
    limit = min(config.prompt_limit, usable_length(config) - config.max_response_length)
    data = choose_prompts(inputs.file, encoder, limit=limit, splits=splits)
    if config.evaluate_split == "test" and not len(data.splits["test"]):
        raise UsageError(f"{config.data} has no prompt in its test split, which --evaluate-split asks for")
    if config.shard and session.world.size == 1:
        raise UsageError("--shard spreads models over several processes, and this is one alone: start them by torchrun")
    # What needs no model is looked at before one is loaded.
    check_rewards(session, data, encoder)
    models = make_models(session, data, encoder)
    course = course_of(config, prompts=len(data.train), seed=config.seed)
    prepared = Prepared(data, encoder, models, load_ptx(session, encoder, models), course)
    prepared.facts = facts_of(prepared, inputs)
    describe_start(session, prepared)
    return prepared


def describe_start(session: Session[PpoConfig], prepared: Prepared) -> None:
    """Device, arithmetic, sizes and data, before the first step."""
    config, data, models = session.config, prepared.data, prepared.models
    policy = models.policy
    arithmetic = str(policy.autocast_dtype).removeprefix("torch.")
    trained = sum(value.numel() for value in models.parameters.values())
    tokens = max(config.micro_batch_tokens, data.longest + config.max_response_length)
    session.say(f"device {policy.device}, weights float32, forward {arithmetic}, {session.world.size} process(es)")
    session.say(f"training {trained:,} parameters of policy and value model, about "
                f"{estimate_memory(models, tokens=tokens) / 2**30:.1f} GiB at the peak")  # fmt: skip
    session.say(f"chat template: {prepared.encoder.template_name}")
    for split, prompts in data.splits.items():
        session.say(f"{split}: {len(prompts)} prompts, {data.longest} tokens at most")
    if data.dropped:
        session.say(f"dropped: {words_of(data.dropped)}")
    if not len(data.validation):
        session.say("no validation prompts: no curves, no alarm and no win rate")
    responses = config.batch_size * config.samples_per_prompt
    session.say(f"{prepared.course.steps} steps of {responses} responses, {config.inner_epochs} passes over each")


def estimate_memory(models: Models, *, tokens: int) -> int:
    """The peak of training memory in bytes: policy or value model in training, the others at rest, and what is never
    trained: the reference where it is a copy, and the reward models. A judge that is made later comes on top."""
    loads, wholes = [], set[int]()
    for model in (models.policy, models.value):
        if model is not None:
            load = load_of(model)
            loads.append(replace(load, weights=0) if id(model.whole) in wholes else load)
            wholes.add(id(model.whole))
    frozen = {id(whole): whole for whole in (models.reference.whole, *models_of(models.sources))}
    others = sum(_parameters_of(whole) for key, whole in frozen.items() if key not in wholes)
    logits = logit_bytes(models.policy.head.out_features, tokens=tokens)
    return peak_together(loads, frozen=others, tokens=tokens) + logits


def _parameters_of(whole: Any) -> int:
    return sum(value.numel() for value in whole.parameters())


def facts_of(prepared: Prepared, inputs: Inputs) -> dict[str, Any]:
    """What ``run.json`` keeps of the decisions made at the start."""
    models = prepared.models
    return {
        "device": str(models.policy.device),
        "forward_dtype": str(models.policy.autocast_dtype).removeprefix("torch."),
        "chat_template": prepared.encoder.template_name,
        "packed": models.rows.packed,
        "steps": prepared.course.steps,
        "others": dict(inputs.others),
        "trunk": "shared" if models.trunk is not None else "separate",
    }


def open_samples(session: Session[PpoConfig], *, from_step: int) -> StepFile | None:
    """``samples.jsonl`` behind ``from_step``, empty where the run begins anew; None where others write."""
    # The table of step 0 is written again, too.
    behind = from_step or -1
    return StepFile(session.folder / SAMPLES_NAME, from_step=behind) if session.world.is_main else None
