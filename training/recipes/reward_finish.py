"""The end of ``recipes.reward``: a member's scores and folder, and the report on all of them."""

import shutil
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from training.core.dataset import Dataset
from training.core.evaluation import evaluate
from training.core.files import published_folder, read_json, shown_name, write_json
from training.core.licences import licence_of
from training.core.randomness import derive_seed, permutation
from training.core.report_page import write_report_files
from training.core.reports import reward_model_card, warnings_about
from training.core.runfolder import REPORT_NAME
from training.core.saving import ScoreScale, fold_scale, save_reward_model, scale_of
from training.core.scorer import outcome_model_of
from training.core.scoring import score_dataset
from training.core.sharding import gather_model
from training.recipes.configs import RewardConfig, to_values
from training.recipes.launch import Session
from training.recipes.reward_setup import Member, Prepared

# Train prompts that the scale of the scores is measured on; of more, as many are drawn by the seed.
SCALE_PROMPTS = 2000
MEMBER_NAME = "plackett_member.json"

Scores = list[list[float]]


def finish_member(
    session: Session[RewardConfig],
    prepared: Prepared,
    member: Member,
    known: Scores | None,
    *,
    steps: int,
    skipped: int,
    kept_step: int | None,
) -> None:
    """Score the held-out splits, bring the scores to one scale and publish the model.

    Args:
        known: the validation scores of these very weights, where they are known.
        steps: that the member took.
        skipped: of them, those whose gradients were not finite.
        kept_step: the step (of the run) whose weights these are, where they are not the last.
    """
    held_out = {
        split: known if split == "validation" and known is not None else score_all(prepared, member, data)
        for split, data in prepared.held_out.items()
    }
    scale = scale_of([score for row in score_train(session, prepared, member) for score in row])
    if session.config.shard:
        gather_model(member.model, session.world)
    if not session.world.is_main:
        return
    thresholds = member.objective.threshold_values()
    outcome_model = member.objective.outcome_model()
    sections = {
        split: evaluate(
            prepared.splits[split], scores, seed=session.config.seed,
            known_annotators=prepared.train.known_annotators, annotators=prepared.train.annotators,
            outcome_log_probabilities=outcome_model, below=prepared.settings.counts_unranked,
        )
        for split, scores in held_out.items()
    }  # fmt: skip
    facts = {
        "scores": held_out,
        "scale": vars(scale),
        "skipped": skipped,
        "report": member_report(prepared, sections, scale, thresholds, steps=steps, skipped=skipped)
        | ({"kept_step": kept_step} if kept_step is not None else {}),
    }
    fold_scale(member.model, scale, thresholds=thresholds, ties=session.config.ties)
    publish_member(session, prepared, member, facts)


def score_all(prepared: Prepared, member: Member, data: Dataset) -> Scores:
    """Scores of a whole split, as trained."""
    scores = score_dataset(member.model, data, prepared.layout, budget=prepared.budget)
    assert scores is not None
    return scores


def score_train(session: Session[RewardConfig], prepared: Prepared, member: Member) -> Scores:
    """Scores of the train responses, of a sample of the prompts if there are many."""
    numbers = permutation(len(prepared.train), derive_seed(session.config.seed, "scale"))[:SCALE_PROMPTS]
    scores = score_dataset(member.model, prepared.train, prepared.layout, budget=prepared.budget, numbers=numbers)
    assert scores is not None
    return scores


def member_report(
    prepared: Prepared,
    sections: dict[str, Any],
    scale: ScoreScale,
    thresholds: dict[str, float],
    *,
    steps: int,
    skipped: int,
) -> dict[str, Any]:
    """What ``report.json`` holds of one model."""
    used = sum(data.rankings for data in prepared.splits.values())
    return {
        "kind": "reward",
        "steps": steps,
        "counts": {
            "read": prepared.snapshot.read,
            "used": used,
            "dropped": dict(sorted(prepared.encoded.dropped.items())),
            **{
                split: {"rankings": data.rankings, "prompts": len(data), "pairs": data.pairs}
                for split, data in prepared.splits.items()
            },
        },
        **sections,
        "score_scale": {**vars(scale), "responses_of_prompts": min(SCALE_PROMPTS, len(prepared.train))},
        "thresholds": thresholds,
        "warnings": warnings_of(prepared, sections, skipped=skipped),
    }


def warnings_of(prepared: Prepared, sections: dict[str, Any], *, skipped: int) -> list[str]:
    """What a reader of the report has to know."""
    return warnings_about(
        sections,
        defused_texts=prepared.encoded.defused,
        skipped_steps=skipped,
        not_packed=None if prepared.layout.packed else prepared.layout_reason,
        shared_groups=prepared.encoded.shared_groups,
        cut=prepared.encoded.cut,
    )


def member_folder(folder: Path, number: int) -> Path:
    """Where a member of an ensemble stands."""
    return folder / "ensemble" / str(number)


def publish_member(session: Session[RewardConfig], prepared: Prepared, member: Member, facts: dict[str, Any]) -> None:
    """Write the model's folder: DIR/model where there is one model, else DIR/ensemble/N."""
    config, folder = session.config, session.folder
    card = reward_model_card(
        base=config.model, report=facts["report"], config=to_values(config), data_sha256=prepared.snapshot.sha256,
        licence=licence_of(config.model),
    )  # fmt: skip
    if config.ensemble == 1:
        finish_report(session, facts["report"])
        adapter = folder / "adapter" if config.lora_rank else None
        save_reward_model(member.model, prepared.tokenizer, folder / "model", card=card, adapter=adapter)
        return
    target = member_folder(folder, member.number)
    adapter = folder / "ensemble" / f"{member.number}-adapter" if config.lora_rank else None
    save_reward_model(member.model, prepared.tokenizer, target, card=card, adapter=adapter, extra={MEMBER_NAME: facts})


def finish_ensemble(session: Session[RewardConfig], prepared: Prepared) -> None:
    """The report on the first model, with what all of them say together, and DIR/model, a copy of the first."""
    if not session.world.is_main:
        return
    folder, count = session.folder, session.config.ensemble
    facts = [read_json(member_folder(folder, number) / MEMBER_NAME) for number in range(count)]
    report = facts[0]["report"]
    report["steps"] = sum(each["report"]["steps"] for each in facts)
    report["warnings"] = warnings_of(
        prepared,
        {split: report[split] for split in prepared.held_out},
        skipped=sum(each["skipped"] for each in facts),
    )
    for split, data in prepared.held_out.items():
        report[split]["ensemble"] = ensemble_section(session, prepared, data, split, facts)
    finish_report(session, report)
    if session.config.lora_rank:
        with published_folder(folder / "adapter") as scratch:
            shutil.copytree(folder / "ensemble" / "0-adapter", scratch, dirs_exist_ok=True)
    with published_folder(folder / "model") as scratch:
        shutil.copytree(member_folder(folder, 0), scratch, dirs_exist_ok=True)
        (scratch / MEMBER_NAME).unlink()
        card = reward_model_card(
            base=session.config.model,
            report=report,
            config=to_values(session.config),
            data_sha256=prepared.snapshot.sha256,
            licence=licence_of(session.config.model),
        )
        (scratch / "README.md").write_text(card, encoding="utf-8")


def ensemble_section(
    session: Session[RewardConfig], prepared: Prepared, data: Dataset, split: str, facts: list[dict[str, Any]]
) -> dict[str, Any]:
    """The members' mean as a judge, and how far they are apart.

    The mean is taken of the scores as trained, so that the mean of a difference is the mean of the log-odds; the
    standard deviation of scores brought to one scale, in units of the spread of the train responses.
    """
    members: list[Scores] = [each["scores"][split] for each in facts]
    rows = list(zip(*members, strict=True))
    means = [[fmean(scores) for scores in zip(*row, strict=True)] for row in rows]
    scaled = [
        [[(score - each["scale"]["mean"]) / each["scale"]["std"] for score in row] for row in scores]
        for scores, each in zip(members, facts, strict=True)
    ]
    spread = [pstdev(scores) for row in zip(*scaled, strict=True) for scores in zip(*row, strict=True)]
    outcome_model = outcome_model_of([each["report"]["thresholds"] for each in facts], ties=prepared.settings.ties)
    found = evaluate(
        data, means, seed=session.config.seed, outcome_log_probabilities=outcome_model,
        below=prepared.settings.counts_unranked,
    )  # fmt: skip
    return {
        "members": len(facts),
        **{name: found[name] for name in ("accuracy", "log_loss", "ece", "temperature", "kendall_tau_b")},
        "spread": {"mean": float(np.mean(spread)) if spread else None, "responses": len(spread)},
    }


def finish_report(session: Session[RewardConfig], report: dict[str, Any]) -> None:
    """Write report.json, its page and its plots."""
    name = shown_name(session.config.model)
    write_report_files(session.folder, report, title=f"Reward model from {name}")
    write_json(session.folder / REPORT_NAME, report)
