"""``python -m training.recipes.reward``: a reward model from rankings of K responses.

Reads a snapshot (JSONL, ``plackett/1``), forwards each prompt once with all its responses behind it, and trains one
linear layer to one score, with the trunk or a LoRA adapter below it, on the pairs of the rankings: Bradley-Terry, the
mean over a ranking's pairs, the weighted mean over a prompt's rankings, the mean over the prompts of a step.

Writes DIR/model (loads with ``AutoModelForSequenceClassification``), run.json, metrics.jsonl, report.json, checkpoints
and exit.json. The file reads downward: begin, train step by step, finish; ``reward_setup`` is what stands before.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from training.core.checkpoints import CheckpointSaver, load_checkpoint, newest_good_checkpoint
from training.core.dataset import Dataset, model_fingerprint, pair_tensors, score_dataset
from training.core.errors import StopRequested, TrainingError
from training.core.evaluation import correctness, evaluate, pair_table
from training.core.files import write_json
from training.core.losses import pair_loss
from training.core.modeling import make_optimizer, save_reward_model
from training.core.packing import collate, plan_micro_batches
from training.core.process import STOP_SECONDS, log
from training.core.records import read_rankings
from training.core.reports import accuracy_words, reward_model_card, warnings_about
from training.core.runfolder import REPORT_NAME, MetricsFile, write_run
from training.core.schedule import Course, learning_rate
from training.recipes.configs import RewardConfig, to_values
from training.recipes.launch import Session, check_same_run, is_finished, launch
from training.recipes.reward_setup import Prepared, facts_of, prepare

SKIPPED_STEPS_IN_A_ROW = 10


def train_reward(session: Session[RewardConfig]) -> str:
    """Train, evaluate and save; returns what was done, in one line.

    Raises:
        UsageError: bad data, model or resume.
        TrainingError: the gradients stay non-finite.
        StopRequested: asked to stop; the last published checkpoint holds.
    """
    config, world, stop = session.config, session.world, session.stop
    snapshot = read_rankings(Path(config.data))
    fingerprint = model_fingerprint(config.model)
    check_same_run(session, data_sha256=snapshot.sha256, model_fingerprint=fingerprint)
    if is_finished(session.folder):
        return "already finished"
    prepared = prepare(session, snapshot)
    model, course = prepared.model, prepared.course
    optimizer, parameters = make_optimizer(
        model.trainable(), learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )

    # Where to begin.
    step, skipped = 0, 0
    checkpoint = newest_good_checkpoint(session.folder / "checkpoints")
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, parameters=parameters, optimizer=optimizer)
        step, skipped = checkpoint.step, state["skipped_steps"]
        session.say(f"resuming behind step {step}")
    session.step = step
    metrics = None
    if world.is_main:
        attempt = write_run(
            session.folder,
            recipe=session.recipe,
            config=to_values(config),
            data_sha256=snapshot.sha256,
            model_fingerprint=fingerprint,
            facts=facts_of(session, prepared),
            world_size=world.size,
            from_step=step,
        )
        metrics = MetricsFile(session.folder, attempt=attempt, from_step=step)

    # The loop: one optimiser step a turn.
    last = min(course.steps, config.stop_after or course.steps)
    bar = tqdm(total=course.steps, initial=step, unit="step", disable=not (world.is_main and sys.stderr.isatty()))
    saver = CheckpointSaver(
        session.folder / "checkpoints",
        parameters=dict(parameters),
        optimizer=optimizer,
        keep=config.keep_checkpoints,
        saved_step=step,
    )
    in_a_row = 0
    scores: list[list[float]] | None = None
    stop.grace_seconds = STOP_SECONDS
    while step < last and not world.any(stop.requested, device=session.device):
        step += 1
        started = time.monotonic()
        rate = learning_rate(
            step, steps=course.steps, peak=config.learning_rate, warmup=config.warmup, schedule=config.schedule
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, accuracy, tokens = accumulate_gradients(session, prepared, course.batch(step))
        world.sum_gradients(parameters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters.values(), config.max_grad_norm))
        if math.isfinite(norm):
            optimizer.step()
            in_a_row = 0
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
        optimizer.zero_grad(set_to_none=True)
        if in_a_row == SKIPPED_STEPS_IN_A_ROW:
            raise TrainingError(f"the gradients of {in_a_row} steps in a row were not finite, up to step {step}")
        seconds = time.monotonic() - started

        row: dict[str, float | None] = {
            "train/loss": loss,
            "train/accuracy": accuracy,
            "train/learning_rate": rate,
            "train/grad_norm": norm,
            "train/skipped_steps": skipped,
            "time/step_seconds": round(seconds, 3),
            "time/tokens_per_second": round(tokens / seconds, 1),
        }
        scores = None
        if evaluation_is_due(config, course, step) and prepared.validation.examples:
            scores = score_dataset(
                model, prepared.validation, prepared.layout, world=world, interrupted=lambda: stop.requested
            )
            row["validation/accuracy"] = accuracy_of(prepared.validation, scores)
            row["time/evaluation_seconds"] = round(time.monotonic() - started - seconds, 3)
        session.step = step
        if metrics is not None:
            metrics.write(step, row)
            bar.update()
            if step % config.log_every == 0 or step == last:
                show_progress(bar, course, step, row)

        if metrics is not None and (step % config.checkpoint_every == 0 or saver.is_overdue()):
            metrics.sync()
            saver.save(step, state={"skipped_steps": skipped})
    if metrics is not None:
        metrics.sync()
        saver.save(step, state={"skipped_steps": skipped})
    bar.close()
    if step < last:
        raise StopRequested(f"{stop.reason or 'stopped with another process'} after step {step}")
    if step < course.steps:
        return f"stopped after step {step} of {course.steps}, as --stop-after says"

    # The end. All steps are in a checkpoint: a request to stop may end the process at once from here on.
    stop.grace_seconds = 0.0
    if stop.requested:
        raise StopRequested(f"{stop.reason} after step {step}, before the report")
    report = make_report(session, prepared, scores, skipped=skipped)
    if world.is_main:
        write_json(session.folder / REPORT_NAME, report)
        card = reward_model_card(
            base=config.model, report=report, config=to_values(config), data_sha256=snapshot.sha256
        )
        save_reward_model(model, prepared.tokenizer, session.folder, card=card)
    return f"trained {course.steps} steps, {accuracy_words(report['validation'])}"


# --- one step ---------------------------------------------------------------------------------------------------------


def accumulate_gradients(
    session: Session[RewardConfig], prepared: Prepared, numbers: list[int]
) -> tuple[float, float, int]:
    """Forward and backward of a step's prompts, micro-batch by micro-batch, this process's share of them.

    Returns:
        The loss of the whole step (over all processes), the share of its strict pairs that are right, its tokens.
    """
    data, model, layout = prepared.train, prepared.model, prepared.layout
    # Sorted by length before sharing, so that all processes have about as much to do.
    by_length = sorted(numbers, key=lambda number: (-data.tokenised[number].longest, number))
    totals = torch.zeros(4, dtype=torch.float64, device=session.device)
    mine = session.world.share(by_length)
    for batch in plan_micro_batches(data.tokenised, mine, packed=layout.packed, budget=layout.budget):
        rows = collate(data.tokenised, batch, packed=layout.packed, pad_id=layout.pad_id, device=session.device)
        first, second, outcome, weight = pair_tensors(data.examples, batch, device=session.device)
        scores = model.score(rows)
        loss = pair_loss(scores, first, second, outcome, weight / len(numbers))
        loss.backward()  # type: ignore[no-untyped-call]
        strict = outcome == 1
        margin = (scores[first] - scores[second]).detach()[strict]
        right = ((margin.sign() + 1) / 2).sum()
        totals += torch.stack([loss.detach(), right, strict.sum(), torch.tensor(batch.tokens, device=session.device)])
    loss_total, right_total, strict_total, tokens = session.world.total(totals).tolist()
    return loss_total, right_total / strict_total if strict_total else math.nan, int(tokens)


def evaluation_is_due(config: RewardConfig, course: Course, step: int) -> bool:
    """Whether validation is scored behind this step; always behind the last."""
    due = step % config.evaluate_every == 0 if config.evaluate_every else course.ends_epoch(step)
    return due or step == course.steps


def accuracy_of(data: Dataset, scores: list[list[float]] | None) -> float | None:
    """The share of strict pairs that are right; None without scores or pairs."""
    if scores is None:
        return None
    margin = pair_table(data.examples, scores).margin
    return float(correctness(margin).mean()) if len(margin) else None


# --- the report -------------------------------------------------------------------------------------------------------


def make_report(
    session: Session[RewardConfig], prepared: Prepared, scores: list[list[float]] | None, *, skipped: int
) -> dict[str, Any]:
    """What ``report.json`` holds; validation is scored unless the last step just did, test only when asked."""
    config = session.config
    sections: dict[str, Any] = {}
    for split, data in prepared.splits.items():
        if split == "train":
            continue
        known = scores if split == "validation" else None
        known = known or score_dataset(prepared.model, data, prepared.layout, world=session.world)
        assert known is not None
        sections[split] = evaluate(data.examples, known, seed=config.seed)
    used = sum(data.rankings for data in prepared.splits.values())
    return {
        "kind": "reward",
        "steps": prepared.course.steps,
        "counts": {
            "read": prepared.snapshot.read,
            "used": used,
            "dropped": dict(sorted(prepared.dropped.items())),
            **{
                split: {"rankings": data.rankings, "prompts": len(data.examples), "pairs": data.pairs}
                for split, data in prepared.splits.items()
            },
        },
        **sections,
        "warnings": warnings_about(
            sections,
            defused_texts=prepared.encoder.defused,
            skipped_steps=skipped,
            not_packed=None if prepared.layout.packed else prepared.layout_reason,
        ),
    }


def show_progress(bar: "tqdm[Any]", course: Course, step: int, row: dict[str, float | None]) -> None:
    """The step's figures: behind the bar on a terminal, as a plain line elsewhere."""
    shown = {
        "loss": row["train/loss"],
        "norm": row["train/grad_norm"],
        "accuracy": row.get("validation/accuracy"),
    }
    words = {name: f"{value:.4f}" for name, value in shown.items() if value is not None}
    if bar.disable:
        figures = " ".join(f"{name} {value}" for name, value in words.items())
        log(f"step {step}/{course.steps} {figures} {row['time/step_seconds']} s")
    else:
        bar.set_postfix(words)


if __name__ == "__main__":
    sys.exit(launch("reward", RewardConfig, train_reward))
