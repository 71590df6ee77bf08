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
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.core.checkpoints import Checkpoint, CheckpointSaver, load_checkpoint, load_weights, newest_good_checkpoint
from training.core.errors import StopRequested
from training.core.files import model_fingerprint, read_json
from training.core.judgements import correctness, pair_table
from training.core.process import STOP_SECONDS, log
from training.core.records import read_rankings
from training.core.reports import accuracy_words
from training.core.runfolder import REPORT_NAME, MetricsFile, write_run
from training.core.schedule import Course
from training.core.scoring import score_dataset
from training.recipes.configs import RewardConfig, to_values
from training.recipes.launch import Session, check_same_run, is_finished, launch
from training.recipes.reward_finish import Scores, finish_ensemble, finish_member, member_folder
from training.recipes.reward_setup import Member, Prepared, facts_of, make_member, prepare
from training.recipes.reward_step import refuse_endless_skipping, set_rates, take_step


@dataclass(frozen=True)
class Progress:
    """How far the run is; stands in each checkpoint. ``step`` counts over all members, ``member_step`` within one.

    ``best`` is the lowest validation loss of the member, seen behind ``best_step`` (of the run), ``worse`` the
    validations since; ``ended`` says that early stopping ended the member. ``micro_batch_tokens`` is what was left of
    the flag of that name once memory had run out.
    """

    step: int = 0
    member: int = 0
    member_step: int = 0
    skipped_steps: int = 0
    best: float | None = None
    best_step: int | None = None
    worse: int = 0
    ended: bool = False
    micro_batch_tokens: int | None = None


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
    member = make_member(session, prepared, progress.member)
    session.step = progress.step
    metrics = None
    if session.world.is_main:
        attempt = write_run(
            session.folder,
            recipe=session.recipe,
            config=to_values(config),
            data_sha256=snapshot.sha256,
            model_fingerprint=fingerprint,
            facts=facts_of(prepared, member.model, ensemble=config.ensemble),
            world_size=session.world.size,
            from_step=progress.step,
        )
        metrics = MetricsFile(session.folder, attempt=attempt, from_step=progress.step)

    while True:
        run = MemberRun(session, prepared, member, metrics, progress)
        if checkpoint is not None:
            run.load(checkpoint)
        scores = run.train()
        progress = run.progress
        if not run.is_done():
            return f"stopped after step {progress.step} of {run.steps_in_all}, as --stop-after says"
        # All steps are in a checkpoint: a request to stop may end the process at once from here on.
        session.stop.grace_seconds = 0.0
        if session.stop.requested:
            raise StopRequested(f"{session.stop.reason} after step {progress.step}, before the report")
        if config.ensemble == 1 or not member_folder(session.folder, member.number).is_dir():
            finish_member(
                session,
                prepared,
                member,
                scores,
                steps=progress.member_step,
                skipped=progress.skipped_steps,
                kept_step=run.kept_step,
            )
        if member.number + 1 == config.ensemble:
            break
        member = make_member(session, prepared, member.number + 1)
        checkpoint = None
        progress = Progress(step=progress.step, member=member.number)
    if config.ensemble > 1:
        finish_ensemble(session, prepared)
    report = session.world.from_main(read_json(session.folder / REPORT_NAME))
    return f"trained {progress.step} steps, {accuracy_words(report['validation'])}"


def progress_at(checkpoint: Checkpoint | None) -> Progress:
    """How far a checkpoint's run was; nowhere without one."""
    if checkpoint is None:
        return Progress()
    state = read_json(checkpoint.path / "state.json")
    return Progress(**{name: state[name] for name in asdict(Progress()) if name in state} | {"step": checkpoint.step})


class MemberRun:
    """The training of one member: one optimiser step a turn, until its course, a stop or --stop-after ends it."""

    def __init__(
        self,
        session: Session[RewardConfig],
        prepared: Prepared,
        member: Member,
        metrics: MetricsFile | None,
        progress: Progress,
    ) -> None:
        self.session, self.prepared, self.member, self.metrics = session, prepared, member, metrics
        self.progress = progress
        self.steps_in_all = member.course.steps * session.config.ensemble
        self.in_a_row = 0
        self.kept_step: int | None = None
        self.saver = CheckpointSaver(
            session.folder / "checkpoints",
            parameters=dict(member.parameters),
            optimizer=member.optimizer,
            keep=session.config.keep_checkpoints,
            saved_step=progress.step,
            writes=session.world.is_main,
        )

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on behind a checkpoint."""
        load_checkpoint(checkpoint, parameters=self.member.parameters, optimizer=self.member.optimizer)
        budget = self.prepared.budget
        budget.tokens = min(budget.tokens, self.progress.micro_batch_tokens or budget.tokens)
        self.session.say(f"resuming after step {checkpoint.step}")

    def is_done(self) -> bool:
        """Whether the member takes no further step."""
        return self.progress.ended or self.progress.member_step >= self.member.course.steps

    def train(self) -> Scores | None:
        """Take the steps that are left; returns the validation scores of the weights then held, where they are known.

        Raises:
            StopRequested: asked to stop, with the last step in a checkpoint.
        """
        session, config = self.session, self.session.config
        last = config.stop_after or self.steps_in_all
        scores: Scores | None = None
        session.stop.grace_seconds = STOP_SECONDS
        with self._bar() as bar:
            while not self.is_done() and self.progress.step < last and not self._must_stop():
                scores = self._turn(bar)
            self._save()
        if self._must_stop() and not self.is_done() and self.progress.step < last:
            reason = session.stop.reason or "stopped with another process"
            raise StopRequested(f"{reason} after step {self.progress.step}")
        best = self.progress.best_step
        if self.is_done() and best is not None and best != self.progress.step:
            load_weights(session.folder / "checkpoints", best, parameters=self.member.parameters)
            self.kept_step = best
            session.say(f"the weights after step {best} had the lowest validation loss")
            return None
        return scores

    def _turn(self, bar: "tqdm[Any]") -> Scores | None:
        """One step, with its row of figures and the checkpoint that may be due behind it."""
        config, member = self.session.config, self.member
        member_step, step = self.progress.member_step + 1, self.progress.step + 1
        started = time.monotonic()
        rate = set_rates(config, member, member_step)
        figures = take_step(self.session, self.prepared, member, member.course.batch(member_step))
        self.in_a_row = self.in_a_row + 1 if figures.skipped else 0
        refuse_endless_skipping(self.in_a_row, step)
        seconds = time.monotonic() - started
        self.progress = replace(
            self.progress,
            step=step,
            member_step=member_step,
            skipped_steps=self.progress.skipped_steps + figures.skipped,
        )
        row: dict[str, float | None] = {
            "train/loss": figures.loss,
            "train/accuracy": figures.accuracy,
            "train/learning_rate": rate,
            "train/grad_norm": figures.norm,
            "train/skipped_steps": self.progress.skipped_steps,
            **{f"train/threshold/{name}": value for name, value in member.objective.threshold_values().items()},
            **({"train/member": member.number} if config.ensemble > 1 else {}),
            "time/step_seconds": round(seconds, 3),
            "time/tokens_per_second": round(figures.tokens / seconds, 1),
        }
        scores = self._validate(row) if evaluation_is_due(config, member.course, member_step) else None
        self.session.step = step
        if self.metrics is not None:
            self.metrics.write(step, row)
            bar.update()
            if step % config.log_every == 0 or member_step == member.course.steps:
                show_progress(bar, self.steps_in_all, step, row)
        overdue = self.session.world.from_main(self.saver.is_overdue()) if config.shard else self.saver.is_overdue()
        if step % config.checkpoint_every == 0 or self.progress.best_step == step or overdue:
            self._save()
        return scores

    def _validate(self, row: dict[str, float | None]) -> Scores | None:
        """Score the validation split, note its figures, and see whether the member has come to its end by them."""
        data, session = self.prepared.validation, self.session
        if not len(data):
            return None
        started = time.monotonic()
        scores = score_dataset(
            self.member.model,
            data,
            self.prepared.layout,
            budget=self.prepared.budget,
            interrupted=lambda: session.stop.requested,
        )
        row["time/evaluation_seconds"] = round(time.monotonic() - started, 3)
        if scores is None and session.config.early_stopping:
            # What a validation decides must not depend on when somebody asked to stop.
            raise StopRequested(f"{session.stop.reason} in the validation after step {self.progress.step}, dropped")
        if scores is None:
            return None
        margin = pair_table(data, scores, below=self.prepared.settings.counts_unranked).margin
        row["validation/accuracy"] = float(correctness(margin).mean()) if len(margin) else None
        row["validation/loss"] = loss = self.member.objective.held_out_loss(data, scores)
        if session.config.early_stopping and loss is not None:
            self._compare(loss, patience=session.config.early_stopping)
        return scores

    def _compare(self, loss: float, *, patience: int) -> None:
        if self.progress.best is None or loss < self.progress.best:
            self.progress = replace(self.progress, best=loss, best_step=self.progress.step, worse=0)
            return
        worse = self.progress.worse + 1
        self.progress = replace(self.progress, worse=worse, ended=worse >= patience)
        if self.progress.ended:
            self.session.say(f"no lower validation loss in {worse} validations: training ends after step "
                             f"{self.progress.step}")  # fmt: skip

    def _must_stop(self) -> bool:
        return self.session.world.any(self.session.stop.requested, device=self.session.device)

    def _save(self) -> None:
        """Publish a checkpoint of the last step; the best one of the member is kept beside the newest."""
        if self.metrics is not None:
            self.metrics.sync()
        if self.session.world.is_main or self.session.config.shard:
            tokens = self.prepared.budget.tokens
            halved = tokens if tokens < self.session.config.micro_batch_tokens else None
            state = asdict(self.progress) | {"micro_batch_tokens": halved}
            self.saver.save(self.progress.step, state=state, protect=self.progress.best_step)

    def _bar(self) -> "tqdm[Any]":
        return tqdm(
            total=self.steps_in_all,
            initial=self.progress.step,
            unit="step",
            disable=not (self.session.world.is_main and sys.stderr.isatty()),
        )


def evaluation_is_due(config: RewardConfig, course: Course, step: int) -> bool:
    """Whether validation is scored behind this step of a member; always behind the last."""
    due = step % config.evaluate_every == 0 if config.evaluate_every else course.ends_epoch(step)
    return due or step == course.steps


def show_progress(bar: "tqdm[Any]", steps: int, step: int, row: dict[str, float | None]) -> None:
    """The step's figures: behind the bar on a terminal, as a plain line elsewhere."""
    shown = {
        "loss": row["train/loss"],
        "norm": row["train/grad_norm"],
        "accuracy": row.get("validation/accuracy"),
    }
    words = {name: f"{value:.4f}" for name, value in shown.items() if value is not None}
    if bar.disable:
        figures = " ".join(f"{name} {value}" for name, value in words.items())
        log(f"step {step}/{steps} {figures} {row['time/step_seconds']} s")
    else:
        bar.set_postfix(words)


if __name__ == "__main__":
    sys.exit(launch("reward", RewardConfig, train_reward))
