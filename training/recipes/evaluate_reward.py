"""``python -m training.recipes.evaluate_reward``: how well a reward model, ours or another's, agrees with people.

Scores a snapshot's held-out split, an LLMBar-style file or chosen/rejected pairs with any sequence classifier of one
label; with the folder of an ensemble's run, with all its members. Writes report.json with its page and plots,
scores.jsonl (one line a response) and exit.json.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from training.core.dataset import Dataset
from training.core.encoding import Encoded, Rules
from training.core.errors import UsageError
from training.core.evaluation import evaluate
from training.core.files import model_fingerprint, shown_name, write_json
from training.core.foreign import is_foreign, write_native
from training.core.halving import MicroBatchBudget
from training.core.modeling import choose_autocast
from training.core.records import Snapshot, read_rankings
from training.core.report_page import write_report_files
from training.core.reports import accuracy_words, warnings_about
from training.core.runfolder import REPORT_NAME, write_run
from training.core.scorer import load_scorer, member_folders, outcome_model_of
from training.core.scoring import score_dataset
from training.core.tokens import PLAIN_TEMPLATE_NAME
from training.recipes.configs import EvaluateRewardConfig, to_values
from training.recipes.launch import Session, check_same_run, is_finished, launch
from training.recipes.preparing import encode_together, words_of
from training.recipes.reward_setup import choose_layout

SCORES_NAME, NATIVE_NAME = "scores.jsonl", "data.jsonl"

Scores = list[list[float]]


@dataclass(frozen=True)
class Scored:
    """What one model says of the split; ``scores`` have the model's mean subtracted, ``scale`` makes them log-odds."""

    encoded: Encoded
    data: Dataset
    scores: Scores
    scale: float
    thresholds: dict[str, float]
    ties: str
    template: str
    layout_reason: str

    def log_odds(self) -> Scores:
        """The scores on the scale that was trained."""
        return [[score * self.scale for score in row] for row in self.scores]


def evaluate_reward(session: Session[EvaluateRewardConfig]) -> str:
    """Score and report; returns what was found, in one line.

    Raises:
        UsageError: bad data, or no reward model; the folder can then be started in again.
    """
    config = session.config
    scratch = session.folder / f"{NATIVE_NAME}.tmp"
    try:
        snapshot, split, source_lines = read_any(session, scratch)
        fingerprint = " ".join(model_fingerprint(name) for name in member_folders(config.model))
        check_same_run(session, data_sha256=snapshot.sha256, model_fingerprint=fingerprint)
        if is_finished(session):
            return "already finished"
        scored = [score_with(session, snapshot, split, name) for name in member_folders(config.model)]
        if not len(scored[0].data):
            dropped = words_of(scored[0].encoded.dropped)
            raise UsageError(f"{config.data} has no ranking of the split {split}: dropped {dropped}")
    finally:
        if session.world.is_main:
            scratch.unlink(missing_ok=True)
    means, log_odds = mean_of([each.scores for each in scored]), mean_of([each.log_odds() for each in scored])
    section = evaluate(
        scored[0].data, log_odds, seed=config.seed, annotators=scored[0].data.annotators,
        outcome_log_probabilities=outcome_model_of([each.thresholds for each in scored], ties=scored[0].ties),
    )  # fmt: skip
    if session.world.is_main:
        write_run(
            session.folder, recipe=session.recipe, config=to_values(config), data_sha256=snapshot.sha256,
            model_fingerprint=fingerprint, world_size=session.world.size, from_step=0,
            facts={"models": len(scored), "chat_template": scored[0].template},
        )  # fmt: skip
        report = report_of(snapshot, split, scored, section)
        write_scores(session.folder / SCORES_NAME, means, scored, source_lines)
        name = shown_name(config.model)
        write_report_files(session.folder, report, title=f"{name} on {Path(config.data).name}")
        write_json(session.folder / REPORT_NAME, report)
    return accuracy_words(section, split=split)


def mean_of(members: list[Scores]) -> Scores:
    """The mean over the members, response by response."""
    return [[fmean(each) for each in zip(*row, strict=True)] for row in zip(*members, strict=True)]


def read_any(session: Session[EvaluateRewardConfig], scratch: Path) -> tuple[Snapshot, str, list[int] | None]:
    """The rankings of the file, the split to score, and for foreign files, which are written to ``scratch`` as a
    snapshot, the line where each of its records stands.

    Raises:
        UsageError: in all processes if in any.
    """
    config, path = session.config, Path(session.config.data)
    if not is_foreign(path):
        return read_rankings(path, unanswered=True), config.split, None
    lines, fault = None, None
    if session.world.is_main:
        try:
            lines = write_native(path, scratch)
        except UsageError as error:
            fault = str(error)
    if fault := session.world.from_main(fault):
        raise UsageError(fault)
    return read_rankings(scratch), "test", lines


def score_with(session: Session[EvaluateRewardConfig], snapshot: Snapshot, split: str, name: str) -> Scored:
    """Load a model, score the split with it, and let it go."""
    config = session.config
    autocast = choose_autocast(config.dtype, session.device)
    scorer = load_scorer(name, device=session.device, autocast_dtype=autocast, show_thinking=config.thinking == "show")
    limit = getattr(scorer.model.whole.config.get_text_config(), "max_position_embeddings", None)
    rules = Rules((split,), max_length=min(config.max_length, limit or config.max_length), everything=True)
    encoded = encode_together(session, snapshot, scorer.encoder, rules)
    data = encoded.splits[split]
    scores: Scores = []
    reason, packed = "", True
    if len(data):
        layout, reason = choose_layout(scorer.model, [data], pad_id=scorer.pad_id)
        packed = layout.packed
        session.say(f"{name}: {len(data)} prompts, {data.rankings} rankings; rows: {reason}")
        budget = MicroBatchBudget(
            tokens=config.micro_batch_tokens, floor=int(data.longest.max()), world=session.world,
            device=session.device, say=session.say,
        )  # fmt: skip
        found = score_dataset(scorer.model, data, layout, budget=budget)
        assert found is not None
        scores = [[score - scorer.mean for score in row] for row in found]
    return Scored(
        encoded, data, scores, scorer.scale, scorer.thresholds, scorer.ties, scorer.encoder.template_name,
        layout_reason="" if packed else reason,
    )  # fmt: skip


def report_of(snapshot: Snapshot, split: str, scored: list[Scored], section: dict[str, Any]) -> dict[str, Any]:
    """What ``report.json`` holds."""
    first = scored[0]
    return {
        "kind": "evaluation",
        "models": len(scored),
        "counts": {
            "read": snapshot.read,
            "used": first.data.rankings,
            "dropped": dict(sorted(first.encoded.dropped.items())),
            split: {"rankings": first.data.rankings, "prompts": len(first.data), "pairs": first.data.pairs},
        },
        split: section,
        "warnings": warnings_about(
            {split: section},
            defused_texts=first.encoded.defused,
            skipped_steps=0,
            not_packed=first.layout_reason or None,
            template=first.template if first.template == PLAIN_TEMPLATE_NAME else None,
        ),
    }


def write_scores(path: Path, means: Scores, scored: list[Scored], source_lines: list[int] | None) -> None:
    """One JSON line a response: the line of the file that first showed it, its place in it, score and spread."""
    with open(path, "w", encoding="utf-8") as file:
        for number, row in enumerate(means):
            origins = scored[0].data.origins(number)
            for place, score in enumerate(row):
                line, position = origins[place]
                line = source_lines[line - 1] if source_lines else line
                value = {"line": line, "response": position, "score": score}
                if len(scored) > 1:
                    value["std"] = pstdev(each.scores[number][place] for each in scored)
                file.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    sys.exit(launch("evaluate_reward", EvaluateRewardConfig, evaluate_reward, results=(REPORT_NAME,)))
