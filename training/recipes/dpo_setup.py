"""What ``recipes.dpo`` makes at its start: the data once, and the model with its optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.core.dataset import Dataset
from training.core.documents import ResponseEnding
from training.core.encoding import Encoded, Rules
from training.core.errors import UsageError
from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel
from training.core.modeling import load_tokenizer
from training.core.objective import Objective, ObjectiveSettings, tie_facts
from training.core.packing import packing_refusal
from training.core.preference import PolicyResponses, Preferences, packing_error
from training.core.records import SPLITS, Snapshot
from training.core.schedule import Course
from training.core.scoring import Layout
from training.core.tokens import ChatEncoder, stop_ids
from training.recipes.configs import DpoConfig
from training.recipes.launch import Session
from training.recipes.policy_setup import (
    PACKING_TOLERANCE,
    Learner,
    describe_model,
    facts_of_model,
    load_policy,
    make_budget,
    make_learner,
)
from training.recipes.preparing import compute_repeatably, course_of, encode_together, usable_length, words_of


@dataclass
class Prepared:
    """What the loop needs."""

    snapshot: Snapshot
    encoded: Encoded
    encoder: ChatEncoder
    splits: dict[str, Preferences]
    objective: Objective
    learner: Learner
    stop_ids: frozenset[int]
    layout: Layout
    layout_reason: str
    budget: MicroBatchBudget
    course: Course

    @property
    def train(self) -> Preferences:
        """What is learned from."""
        return self.splits["train"]

    @property
    def held_out(self) -> dict[str, Preferences]:
        """The splits of the report."""
        return {split: data for split, data in self.splits.items() if split != "train"}

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` keeps."""
        return facts_of_model(self.learner.model, self.encoder, self.layout, steps=self.course.steps)


def prepare(session: Session[DpoConfig], snapshot: Snapshot) -> Prepared:
    """Encode the rankings and load the model.

    Raises:
        UsageError: nothing to learn from, texts that cannot be encoded, or a model that cannot be used.
    """
    config = session.config
    encoder = ChatEncoder(load_tokenizer(config.model), show_thinking=config.thinking == "show")
    compute_repeatably(session.device)
    # Ties say nothing here (``--ties skip`` of the reward model); what people agree on in held-out splits counts them.
    settings = ObjectiveSettings(loss=config.loss, ties="skip", unranked=config.unranked)
    rules = Rules(
        splits=tuple(split for split in SPLITS if split != "test" or config.evaluate_split == "test"),
        max_length=usable_length(config),
        below=settings.counts_unranked,
    )
    encoded = encode_together(session, snapshot, encoder, rules)
    rankings = encoded.splits["train"]
    if not len(rankings):
        raise UsageError(
            f"{snapshot.path} has no ranking to learn from: {snapshot.read} lines, dropped {words_of(encoded.dropped)}"
        )
    model, pad_id = load_policy(session, encoder)
    ends = stop_ids(encoder, model.whole.generation_config)
    ending = ResponseEnding(encoder, ends)
    splits = {
        split: Preferences(data, PolicyResponses(data.tokenised, ending)) for split, data in encoded.splits.items()
    }
    longest = longest_of(splits)
    layout, reason = choose_layout(model, splits, pad_id=pad_id)
    describe_model(session, model, encoder, longest=longest)
    prepared = Prepared(
        snapshot=snapshot,
        encoded=encoded,
        encoder=encoder,
        splits=splits,
        objective=Objective(settings, tie_facts(rankings)).to(session.device),
        learner=make_learner(session, model),
        stop_ids=ends,
        layout=layout,
        layout_reason=reason,
        budget=make_budget(session, longest=longest),
        course=course_of(config, prompts=len(rankings), seed=config.seed),
    )
    describe_data(session, prepared)
    return prepared


def longest_of(splits: Mapping[str, Preferences]) -> int:
    """Tokens of the longest prompt with a response, over all splits."""
    return max(longest_example(data.rankings, data)[1] for data in splits.values())


def longest_example(rankings: Dataset, data: Preferences) -> tuple[int, int]:
    """The number of a split's longest example, and its tokens with its longest response; (−1, 0) of an empty split."""
    if not len(data):
        return -1, 0
    number = int(rankings.longest.argmax())
    return number, data.responses[number].longest


def choose_layout(model: LanguageModel, splits: Mapping[str, Preferences], *, pad_id: int) -> tuple[Layout, str]:
    """Whether responses share their prompt, and why: the config has to allow it, then the longest example has to come
    out alike."""
    data = max(splits.values(), key=lambda data: longest_example(data.rankings, data)[1])
    number, longest = longest_example(data.rankings, data)
    separate = Layout(False, pad_id)
    if refusal := packing_refusal(model.whole.config.get_text_config(), longest=longest):
        return separate, f"one response a row: {refusal}"
    gap = packing_error(model, data.responses[number], pad_id=pad_id)
    if not gap <= PACKING_TOLERANCE:
        return separate, f"one response a row: packed and separate log-probabilities differ by {gap:.1e}"
    words = f"prompts shared by their responses (packed and separate log-probabilities differ by {gap:.1e})"
    return Layout(True, pad_id), words


def describe_data(session: Session[DpoConfig], prepared: Prepared) -> None:
    """Rankings, rows and steps, before the first step."""
    for split, data in prepared.encoded.splits.items():
        session.say(f"{split}: {data.rankings} rankings, {len(data)} prompts, {data.pairs} pairs")
    if prepared.encoded.dropped:
        session.say(f"dropped: {words_of(prepared.encoded.dropped)}")
    session.say(f"rows: {prepared.layout_reason}")
    session.say("reference: the model before the first step, its log-probabilities computed once")
    session.say(f"{prepared.course.steps} steps of up to {session.config.batch_size} prompts")
