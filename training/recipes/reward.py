"""``python -m training.recipes.reward``: a reward model from rankings of K responses.

Reads a snapshot (JSONL, ``plackett/1``), forwards each prompt once with all its responses behind it, and trains one
linear layer to one score, with the trunk or a LoRA adapter below it. What is learned from a ranking (pairs or choices,
ties, strengths) is ``training.core.objective``'s business.

Writes DIR/model (loads with ``AutoModelForSequenceClassification``), run.json, metrics.jsonl, report.json with its page
and plots, checkpoints and exit.json; with --ensemble also DIR/ensemble/N. The file reads downward: begin, train member
by member and step by step, finish. ``reward_setup`` is what stands before a step, ``reward_step`` the step,
``reward_finish`` what stands behind the last.
"""

import sys
from pathlib import Path

from training.core.checkpoints import newest_good_checkpoint
from training.core.errors import StopRequested
from training.core.files import model_fingerprint, read_json
from training.core.judgements import correctness, pair_table
from training.core.records import read_rankings
from training.core.reports import accuracy_words
from training.core.runfolder import REPORT_NAME, MetricsFile
from training.core.scoring import score_dataset
from training.recipes.configs import RewardConfig
from training.recipes.launch import Session, check_same_run, is_finished, launch
from training.recipes.loop import Progress, Row, StepResult, TrainingLoop, open_run, progress_at, set_rates
from training.recipes.reward_finish import Scores, finish_ensemble, finish_member, member_folder
from training.recipes.reward_setup import Member, Prepared, facts_of, make_member, prepare
from training.recipes.reward_step import take_step


def train_reward(session: Session[RewardConfig]) -> str:
    """Train, evaluate and save; returns what was done, in one line.

    Raises:
        UsageError: bad data, model or resume.
        TrainingError: the gradients stay non-finite, or memory does not suffice.
        StopRequested: asked to stop; the last published checkpoint holds.
    """
    config = session.config
    snapshot = read_rankings(Path(config.data))
    fingerprint = model_fingerprint(config.model)
    check_same_run(session, data_sha256=snapshot.sha256, model_fingerprint=fingerprint)
    if is_finished(session):
        return "already finished"
    prepared = prepare(session, snapshot)
    checkpoint = newest_good_checkpoint(session.folder / "checkpoints")
    progress = progress_at(checkpoint)
    member = make_member(session, prepared, progress.stage)
    metrics = open_run(
        session,
        data_sha256=snapshot.sha256,
        model_fingerprint=fingerprint,
        facts=facts_of(prepared, member.model, ensemble=config.ensemble),
        from_step=progress.step,
    )
    while True:
        run = MemberRun(session, prepared, member, metrics, progress)
        if checkpoint is not None:
            run.load(checkpoint)
        run.train()
        progress = run.progress
        if not run.is_done():
            return f"stopped after step {progress.step} of {run.steps_in_all}, as --stop-after says"
        session.begin_finish(progress.step)
        if config.ensemble == 1 or not member_folder(session.folder, member.number).is_dir():
            finish_member(
                session,
                prepared,
                member,
                run.scores,
                steps=progress.stage_step,
                skipped=progress.skipped_steps,
                kept_step=run.kept_step,
            )
        if member.number + 1 == config.ensemble:
            break
        member = make_member(session, prepared, member.number + 1)
        checkpoint = None
        progress = Progress(step=progress.step, stage=member.number)
    if config.ensemble > 1:
        finish_ensemble(session, prepared)
    report = session.world.from_main(read_json(session.folder / REPORT_NAME))
    return f"trained {progress.step} steps, {accuracy_words(report['validation'])}"


class MemberRun(TrainingLoop[RewardConfig]):
    """The training of one member; ``scores`` are those of validation by the weights held now, where they are known."""

    def __init__(
        self,
        session: Session[RewardConfig],
        prepared: Prepared,
        member: Member,
        metrics: MetricsFile | None,
        progress: Progress,
    ) -> None:
        self.prepared, self.member = prepared, member
        self.scores: Scores | None = None
        super().__init__(
            session,
            course=member.course,
            steps_in_all=member.course.steps * session.config.ensemble,
            parameters=member.parameters,
            optimizer=member.optimizer,
            budgets={"rows": prepared.budget},
            metrics=metrics,
            progress=progress,
        )

    def take_step(self, step: int) -> StepResult:
        """Forward and backward of a batch of prompts, and the update."""
        config, member = self.session.config, self.member
        self.scores = None
        rate = set_rates(config, member.optimizer, member.course, step)
        figures = take_step(self.session, self.prepared, member, member.course.batch(step))
        row: Row = {
            "train/loss": figures.loss,
            "train/accuracy": figures.accuracy,
            "train/learning_rate": rate,
            "train/grad_norm": figures.norm,
            **{f"train/threshold/{name}": value for name, value in member.objective.threshold_values().items()},
            **({"train/member": member.number} if config.ensemble > 1 else {}),
        }
        return StepResult(row, int(figures.skipped), figures.tokens)

    def validate(self, row: Row) -> float | None:
        """Score the validation split and note its figures."""
        data, session = self.prepared.validation, self.session
        if not len(data):
            return None
        self.scores = score_dataset(
            self.member.model,
            data,
            self.prepared.layout,
            budget=self.prepared.budget,
            interrupted=lambda: session.stop.pressing,
        )
        if self.scores is None and session.config.early_stopping:
            # What a validation decides must not depend on when somebody asked to stop.
            raise StopRequested(f"{session.stop.reason} in the validation after step {self.progress.step}, dropped")
        if self.scores is None:
            return None
        margin = pair_table(data, self.scores, below=self.prepared.settings.counts_unranked).margin
        row["validation/accuracy"] = float(correctness(margin).mean()) if len(margin) else None
        row["validation/loss"] = loss = self.member.objective.held_out_loss(data, self.scores)
        return loss

    def take_weights(self, step: int) -> None:
        """Put the weights of a kept checkpoint back; what they score is not known."""
        super().take_weights(step)
        self.scores = None


if __name__ == "__main__":
    sys.exit(launch("reward", RewardConfig, train_reward))
