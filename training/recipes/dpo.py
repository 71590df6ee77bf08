"""``python -m training.recipes.dpo``: a policy straight from rankings, without a reward model and without sampling.

Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): β · ln (π / π_ref) takes the place of a reward
model's score, and is learned from the same snapshots by the same losses: −ln σ over pairs, or Plackett and Luce's
choices over rankings of K. Each prompt is forwarded once with all its responses behind it. The reference is --model;
its log-probabilities are computed once, before the first step, and kept in the run's folder.

Writes DIR/model (loads with ``AutoModelForCausalLM``), with LoRA DIR/adapter, run.json, metrics.jsonl, report.json with
its page and plots, checkpoints and exit.json. The file reads downward: begin, step by step, finish. ``dpo_setup`` is
what stands before a step, ``dpo_finish`` what stands behind the last.
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from training.core.checkpoints import newest_good_checkpoint
from training.core.files import model_fingerprint
from training.core.judgements import correctness, pair_table
from training.core.preference import LogProbs, Reference, implicit_rewards, response_log_probs
from training.core.preference_step import prefer, step_figures
from training.core.records import read_rankings
from training.core.runfolder import MetricsFile
from training.recipes.configs import DpoConfig
from training.recipes.dpo_finish import Rewards, finish_dpo
from training.recipes.dpo_setup import Prepared, prepare
from training.recipes.launch import Session, check_same_run, is_finished, launch
from training.recipes.loop import Progress, Row, StepResult, TrainingLoop, open_run, progress_at, set_rates
from training.recipes.policy_step import update
from training.recipes.start_file import StartFile


def train_dpo(session: Session[DpoConfig]) -> str:
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
    metrics = open_run(
        session,
        data_sha256=snapshot.sha256,
        model_fingerprint=fingerprint,
        facts=prepared.facts,
        from_step=progress.step,
    )
    run = DpoRun(session, prepared, metrics, progress)
    if checkpoint is None:
        run.measure_reference()
    else:
        run.load(checkpoint)
    run.train()
    if not run.is_done():
        return f"stopped after step {run.progress.step} of {run.steps_in_all}, as --stop-after says"
    session.begin_finish(run.progress.step)
    return finish_dpo(session, prepared, run.rewards_now(), steps=run.progress.step, skipped=run.progress.skipped_steps)


class DpoRun(TrainingLoop[DpoConfig]):
    """The loop of DPO. ``references`` are the log-probabilities of the model before the first step, split by split."""

    def __init__(
        self, session: Session[DpoConfig], prepared: Prepared, metrics: MetricsFile | None, progress: Progress
    ) -> None:
        self.prepared, self.learner = prepared, prepared.learner
        self.start = StartFile(session)
        self.references: dict[str, Reference] = {}
        self._validation: Rewards | None = None
        super().__init__(
            session,
            course=prepared.course,
            steps_in_all=prepared.course.steps,
            parameters=self.learner.parameters,
            optimizer=self.learner.optimizer,
            budgets={"rows": prepared.budget},
            metrics=metrics,
            progress=progress,
        )

    def measure_reference(self) -> None:
        """Log-probabilities of the responses that are learned from or held out, while the model is the reference."""
        found = {split: self._log_probs(split, numbers=self._measured(split)) for split in self.prepared.splits}
        known = {split: values for split, values in found.items() if values is not None}
        self.start.write(known)
        self._set_references(known)

    def take_step(self, step: int) -> StepResult:
        """Forward and backward of a batch of prompts, and the update."""
        session, prepared = self.session, self.prepared
        self._validation = None
        rate = set_rates(session.config, self.optimizer, self.course, step)
        accumulate = partial(
            prefer,
            self.learner.model,
            prepared.train,
            self.references["train"],
            prepared.objective,
            self.course.batch(step),
            prepared.layout,
            beta=session.config.beta,
            world=session.world,
            sharded=session.config.shard,
        )
        done = update(session, self.learner, prepared.budget, lambda tokens: accumulate(tokens=tokens))
        row: Row = {
            **step_figures(done.totals),
            "train/learning_rate": rate,
            "train/grad_norm": done.norm,
        }
        return StepResult(row, int(done.skipped), int(done.totals[-1]))

    def validate(self, row: Row) -> float | None:
        """Note how the implicit rewards of the validation split agree with people."""
        data = self.prepared.splits["validation"]
        if not len(data):
            return None
        self._validation = self._rewards("validation", interruptible=True)
        if self._validation is None:
            return None
        below = self.session.config.unranked == "below"
        margin = pair_table(data.rankings, self._validation, below=below).margin
        row["validation/accuracy"] = float(correctness(margin).mean()) if len(margin) else None
        row["validation/margin"] = float(margin.mean()) if len(margin) else None
        row["validation/loss"] = loss = self.prepared.objective.held_out_loss(data.rankings, self._validation)
        return loss

    def rewards_now(self) -> dict[str, Rewards]:
        """Of the weights held now: of each held-out split, the implicit rewards of its responses."""
        found = {}
        for split in self.prepared.held_out:
            known = self._validation if split == "validation" else None
            rewards = self._rewards(split) if known is None else known
            assert rewards is not None
            found[split] = rewards
        return found

    def _rewards(self, split: str, *, interruptible: bool = False) -> Rewards | None:
        log_probs = self._log_probs(split, interruptible=interruptible)
        if log_probs is None:
            return None
        beta = self.session.config.beta
        return implicit_rewards(self.prepared.splits[split], log_probs, self.references[split], beta=beta)

    def _measured(self, split: str) -> list[int] | None:
        """Of the train split, what the steps will come to."""
        return self.course.visited() if split == "train" else None

    def _log_probs(
        self, split: str, *, numbers: list[int] | None = None, interruptible: bool = False
    ) -> LogProbs | None:
        stop = self.session.stop
        return response_log_probs(
            self.learner.model,
            self.prepared.splits[split].responses,
            self.prepared.layout,
            budget=self.prepared.budget,
            numbers=numbers,
            interrupted=lambda: interruptible and stop.pressing,
        )

    def _set_references(self, values: Mapping[str, LogProbs]) -> None:
        self.references = {
            split: Reference(data, np.asarray(values[split], np.float32), self._measured(split))
            for split, data in self.prepared.splits.items()
        }

    def state(self) -> dict[str, Any]:
        """What was measured at the start, by the hash of its file."""
        return {"start_sha256": self.start.sha256}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self._set_references(self.start.read(state["start_sha256"]))

    def shown(self, row: Row) -> dict[str, float | None]:
        """The figures of a progress line."""
        names = {"loss": "train/loss", "norm": "train/grad_norm", "margin": "dpo/margin",
                 "accuracy": "validation/accuracy"}  # fmt: skip
        return {name: row.get(figure) for name, figure in names.items()}


if __name__ == "__main__":
    sys.exit(launch("dpo", DpoConfig, train_dpo))
