"""``python -m training.recipes.evaluate_reward``: how well a reward model, ours or another's, agrees with people.

Scores a snapshot's held-out split, an LLMBar-style file or chosen/rejected pairs with any sequence classifier of one
label; with the folder of an ensemble's run, with all its members. Writes report.json with its page and plots,
scores.jsonl (one line a response) and exit.json.
"""

import json
import sys
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch

from training.core.dataset import Dataset
from training.core.encoding import Encoded, Rules, cache_roots, encode_snapshot
from training.core.errors import UsageError
from training.core.evaluation import evaluate
from training.core.files import model_fingerprint, write_json
from training.core.foreign import is_foreign, write_native
from training.core.modeling import choose_autocast
from training.core.records import Snapshot, read_rankings
from training.core.report_page import write_report_files
from training.core.reports import accuracy_words, warnings_about
from training.core.runfolder import REPORT_NAME, write_run
from training.core.scorer import Scorer, load_scorer, member_folders, outcome_model_of
from training.core.scoring import score_dataset
from training.recipes.configs import EvaluateRewardConfig, to_values
from training.recipes.launch import Session, check_same_run, is_finished, launch
from training.recipes.reward_setup import choose_layout

SCORES_NAME, NATIVE_NAME = "scores.jsonl", "data.jsonl"

Scores = list[list[float]]


def evaluate_reward(session: Session[EvaluateRewardConfig]) -> str:
    """Score and report; returns what was found, in one line.

    Raises:
        UsageError: bad data, or no reward model; the folder can then be started in again.
    """
    try:
        return score_and_report(session)
    except UsageError:
        (session.folder / NATIVE_NAME).unlink(missing_ok=True)
        raise


def score_and_report(session: Session[EvaluateRewardConfig]) -> str:
    """What ``evaluate_reward`` does."""
    config = session.config
    snapshot, split = read_any(session)
    fingerprint = " ".join(model_fingerprint(name) for name in member_folders(config.model))
    check_same_run(session, data_sha256=snapshot.sha256, model_fingerprint=fingerprint)
    if is_finished(session):
        return "already finished"
    scored = [score_with(session, snapshot, split, name) for name in member_folders(config.model)]
    first = scored[0]
    if not len(first.data):
        raise UsageError(f"{config.data} has no ranking of the split {split} (dropped {dict(first.encoded.dropped)})")
    means = [[fmean(each) for each in zip(*row, strict=True)] for row in zip(*(s.scores for s in scored), strict=True)]
    log_odds = [
        [fmean(each) for each in zip(*row, strict=True)] for row in zip(*(s.log_odds() for s in scored), strict=True)
    ]
    section = evaluate(
        first.data, log_odds, seed=config.seed, annotators=first.data.annotators,
        outcome_log_probabilities=outcome_model_of([s.scorer.thresholds for s in scored], ties=first.scorer.ties),
    )  # fmt: skip
    report = report_of(snapshot, split, scored, section)
    if session.world.is_main:
        write_run(
            session.folder, recipe=session.recipe, config=to_values(config), data_sha256=snapshot.sha256,
            model_fingerprint=fingerprint, facts={"models": len(scored)}, world_size=session.world.size, from_step=0,
        )  # fmt: skip
        write_scores(session.folder / SCORES_NAME, first.data, means, [s.scores for s in scored])
        name = Path(config.model).name if Path(config.model).is_dir() else config.model
        write_report_files(session.folder, report, title=f"{name} on {Path(config.data).name}")
        write_json(session.folder / REPORT_NAME, report)
    return accuracy_words(section)


def read_any(session: Session[EvaluateRewardConfig]) -> tuple[Snapshot, str]:
    """The rankings of the file and the split to score; foreign files are first written as a snapshot.

    Raises:
        UsageError: in all processes if in any.
    """
    config, path = session.config, Path(session.config.data)
    if not is_foreign(path):
        return read_rankings(path), config.split
    native, fault = session.folder / NATIVE_NAME, None
    if session.world.is_main:
        try:
            write_native(path, native)
        except UsageError as error:
            fault = str(error)
    if fault := session.world.from_main(fault):
        raise UsageError(fault)
    return read_rankings(native), "test"


class Scored:
    """What one model says of the split."""

    def __init__(self, scorer: Scorer, encoded: Encoded, data: Dataset, scores: Scores, layout_reason: str) -> None:
        self.scorer, self.encoded, self.data = scorer, encoded, data
        self.scores, self.layout_reason = scores, layout_reason

    def log_odds(self) -> Scores:
        """The scores on the scale whose logistic function is the model's probability."""
        return [[score * self.scorer.scale for score in row] for row in self.scores]


def score_with(session: Session[EvaluateRewardConfig], snapshot: Snapshot, split: str, name: str) -> Scored:
    """Load a model and score the split with it; its mean is subtracted."""
    config = session.config
    autocast = choose_autocast(config.dtype, session.device)
    scorer = load_scorer(name, device=session.device, autocast_dtype=autocast, show_thinking=config.thinking == "show")
    limit = getattr(scorer.model.whole.config.get_text_config(), "max_position_embeddings", None)
    rules = Rules((split,), max_length=min(config.max_length, limit or config.max_length), ties=True)
    encoded = encode_snapshot(snapshot, scorer.encoder, rules, roots=cache_roots(session.folder))
    data = encoded.splits[split]
    if not len(data):
        return Scored(scorer, encoded, data, [], "")
    layout, reason = choose_layout(scorer.model, [data], pad_id=scorer.pad_id)
    session.say(f"{name}: {len(data)} prompts, {data.rankings} rankings; rows: {reason}")
    with torch.inference_mode():
        scores = score_dataset(scorer.model, data, layout, budget=config.micro_batch_tokens, world=session.world)
    assert scores is not None
    centred = [[score - scorer.mean for score in row] for row in scores]
    return Scored(scorer, encoded, data, centred, "" if layout.packed else reason)


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
        ),
    }


def write_scores(path: Path, data: Dataset, means: Scores, members: list[Scores]) -> None:
    """One JSON line a response: the line of the file that first showed it, its place in it, score and spread."""
    with open(path, "w", encoding="utf-8") as file:
        for number, row in enumerate(means):
            origins = data.origins(number)
            for place, score in enumerate(row):
                line, position = origins[place]
                value = {"line": line, "response": position, "score": score}
                if len(members) > 1:
                    value["std"] = pstdev(scores[number][place] for scores in members)
                file.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    sys.exit(launch("evaluate_reward", EvaluateRewardConfig, evaluate_reward, results=(REPORT_NAME,)))
