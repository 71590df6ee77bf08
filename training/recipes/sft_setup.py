"""What ``recipes.sft`` makes at its start: the documents once, and the model with its optimizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.core.conversations import DemonstrationFile, read_demonstrations
from training.core.documents import Documents, EncodedDocuments, encode_documents
from training.core.errors import UsageError
from training.core.halving import MicroBatchBudget
from training.core.imitation import document_packing_error
from training.core.language import LanguageModel
from training.core.modeling import load_tokenizer
from training.core.packing import packing_refusal
from training.core.records import SPLITS
from training.core.schedule import Course
from training.core.scoring import Layout
from training.core.tokens import ChatEncoder, stop_ids
from training.recipes.configs import SftConfig
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
from training.recipes.preparing import compute_repeatably, course_of, usable_length, words_of


@dataclass
class Prepared:
    """What the loop needs."""

    file: DemonstrationFile
    encoded: EncodedDocuments
    encoder: ChatEncoder
    learner: Learner
    layout: Layout
    layout_reason: str
    stop_ids: frozenset[int]
    budget: MicroBatchBudget
    course: Course

    @property
    def train(self) -> Documents:
        """The documents that are learned from."""
        return self.encoded.splits["train"]

    @property
    def held_out(self) -> dict[str, Documents]:
        """The splits of the report."""
        return {split: documents for split, documents in self.encoded.splits.items() if split != "train"}

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` keeps."""
        return facts_of_model(self.learner.model, self.encoder, self.layout, steps=self.course.steps)


def read_data(config: SftConfig) -> DemonstrationFile:
    """The file's demonstrations; what is hidden makes no difference between two of them."""
    return read_demonstrations(Path(config.data), seed=config.seed, thinking=config.thinking == "show")


def prepare(session: Session[SftConfig], file: DemonstrationFile) -> Prepared:
    """Encode the documents and load the model.

    Raises:
        UsageError: nothing to learn from, texts that cannot be encoded, or a model that cannot be used.
    """
    config = session.config
    encoder = ChatEncoder(load_tokenizer(config.model), show_thinking=config.thinking == "show")
    compute_repeatably(session.device)
    model, pad_id = load_policy(session, encoder)
    ends = stop_ids(encoder, model.whole.generation_config)
    splits = tuple(split for split in SPLITS if split != "test" or config.evaluate_split == "test")
    encoded = encode_documents(file, encoder, splits=splits, max_length=usable_length(config), stop_ids=ends)
    train = encoded.splits["train"]
    if not len(train):
        raise UsageError(
            f"{file.path} has no answer to learn from: {file.read} lines, dropped {words_of(encoded.dropped)}"
        )
    layout, reason = choose_layout(model, encoded, pad_id=pad_id)
    longest = max(documents.longest for documents in encoded.splits.values())
    describe_model(session, model, encoder, longest=longest)
    course = course_of(config, prompts=len(train), seed=config.seed)
    prepared = Prepared(
        file=file,
        encoded=encoded,
        encoder=encoder,
        learner=make_learner(session, model),
        layout=layout,
        layout_reason=reason,
        stop_ids=ends,
        budget=make_budget(session, longest=longest),
        course=course,
    )
    describe_data(session, prepared)
    return prepared


def choose_layout(model: LanguageModel, encoded: EncodedDocuments, *, pad_id: int) -> tuple[Layout, str]:
    """Whether documents share rows, and why: the config has to allow it, then the longest have to come out alike."""
    data = max(encoded.splits.values(), key=lambda documents: documents.longest)
    separate = Layout(False, pad_id)
    if refusal := packing_refusal(model.whole.config.get_text_config(), longest=data.longest):
        return separate, f"one document a row: {refusal}"
    gap = document_packing_error(model, data, pad_id=pad_id)
    if not gap <= PACKING_TOLERANCE:
        return separate, f"one document a row: packed and separate log-probabilities differ by {gap:.1e}"
    return Layout(True, pad_id), f"shared by documents (packed and separate log-probabilities differ by {gap:.1e})"


def describe_data(session: Session[SftConfig], prepared: Prepared) -> None:
    """Documents, rows and steps, before the first step."""
    encoded = prepared.encoded
    for split, documents in encoded.splits.items():
        session.say(
            f"{split}: {len(documents)} documents, {documents.all_targets} of {documents.tokens} tokens learned"
        )
    session.say(f"from {words_of(encoded.sources)}")
    if encoded.dropped:
        session.say(f"dropped: {words_of(encoded.dropped)}")
    session.say(f"rows: {prepared.layout_reason}")
    session.say(f"{prepared.course.steps} steps of up to {session.config.batch_size} documents")
