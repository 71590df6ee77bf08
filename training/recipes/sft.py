"""``python -m training.recipes.sft``: a language model from good answers.

Reads a snapshot (JSONL, ``plackett/1``) and imitates its demonstrations, its rewrites and one best-ranked response of
every other ranking. The loss is on the response and its end alone, the mean over all such tokens of a step; documents
share rows without seeing one another (``training.core.documents``).

Writes DIR/model (loads with ``AutoModelForCausalLM``), with LoRA DIR/adapter, run.json, metrics.jsonl, samples.jsonl
(answers to a few held-out prompts before and after), report.json with its page, checkpoints and exit.json. The file
reads downward: begin, step by step, finish. ``sft_setup`` is what stands before a step, ``sft_finish`` what stands
behind the last.
"""

import math
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from training.core.bootstrap import Floats
from training.core.checkpoints import newest_good_checkpoint
from training.core.files import model_fingerprint
from training.core.imitation import document_losses, imitate, mean_loss
from training.core.runfolder import MetricsFile
from training.recipes.configs import SftConfig
from training.recipes.launch import Session, check_same_run, is_finished, launch
from training.recipes.loop import Progress, Row, StepResult, TrainingLoop, open_run, progress_at, set_rates
from training.recipes.policy_step import update
from training.recipes.sft_finish import Losses, finish_sft
from training.recipes.sft_samples import SampleTable
from training.recipes.sft_setup import Prepared, prepare, read_data
from training.recipes.start_file import StartFile

# Its exponential is still a number.
LARGEST_LOSS = 700.0


def train_sft(session: Session[SftConfig]) -> str:
    """Train, evaluate and save; returns what was done, in one line.

    Raises:
        UsageError: bad data, model or resume.
        TrainingError: the gradients stay non-finite, or memory does not suffice.
        StopRequested: asked to stop; the last published checkpoint holds.
    """
    config = session.config
    file = read_data(config)
    fingerprint = model_fingerprint(config.model)
    check_same_run(session, data_sha256=file.sha256, model_fingerprint=fingerprint)
    if is_finished(session):
        return "already finished"
    prepared = prepare(session, file)
    checkpoint = newest_good_checkpoint(session.folder / "checkpoints")
    progress = progress_at(checkpoint)
    metrics = open_run(
        session,
        data_sha256=file.sha256,
        model_fingerprint=fingerprint,
        facts=prepared.facts,
        from_step=progress.step,
    )
    run = SftRun(session, prepared, metrics, progress)
    if checkpoint is None:
        run.look_at_the_start()
    else:
        run.load(checkpoint)
    run.train()
    if not run.is_done():
        return f"stopped after step {run.progress.step} of {run.steps_in_all}, as --stop-after says"
    session.begin_finish(run.progress.step)
    after = run.losses_now()
    run.samples.write(run.progress.step)
    return finish_sft(
        session,
        prepared,
        before=run.before,
        after=after,
        steps=run.progress.step,
        skipped=run.progress.skipped_steps,
    )


class SftRun(TrainingLoop[SftConfig]):
    """The loop of SFT. ``before`` are the held-out losses before the first step, document by document."""

    def __init__(
        self, session: Session[SftConfig], prepared: Prepared, metrics: MetricsFile | None, progress: Progress
    ) -> None:
        self.prepared, self.learner = prepared, prepared.learner
        self.samples = SampleTable(session, prepared, from_step=progress.step)
        self.start = StartFile(session)
        self.before: Losses = {}
        self._validation: Floats | None = None
        super().__init__(
            session,
            course=prepared.course,
            steps_in_all=prepared.course.steps,
            parameters=self.learner.parameters,
            optimizer=self.learner.optimizer,
            budgets={"rows": prepared.budget},
            metrics=metrics,
            progress=progress,
            files=() if self.samples.file is None else (self.samples.file,),
        )

    def take_step(self, step: int) -> StepResult:
        """Forward and backward of a batch of documents, and the update."""
        session, prepared = self.session, self.prepared
        self._validation = None
        rate = set_rates(session.config, self.optimizer, self.course, step)
        accumulate = partial(
            imitate,
            self.learner.model,
            prepared.train,
            self.course.batch(step),
            prepared.layout,
            world=session.world,
            sharded=session.config.shard,
        )
        done = update(session, self.learner, prepared.budget, lambda tokens: accumulate(tokens=tokens))
        loss, tokens = done.totals
        row: Row = {"train/loss": loss, "train/learning_rate": rate, "train/grad_norm": done.norm}
        return StepResult(row, int(done.skipped), int(tokens))

    def validate(self, row: Row) -> float | None:
        """Note the loss on the validation documents and its perplexity."""
        self._validation = self._losses("validation", interruptible=True)
        loss = None if self._validation is None else mean_loss(self.prepared.held_out["validation"], self._validation)
        if loss is not None:
            row["validation/loss"], row["validation/perplexity"] = loss, math.exp(min(loss, LARGEST_LOSS))
        return loss

    def look_at_the_start(self) -> None:
        """Held-out losses and samples before any step."""
        self.before = self.losses_now()
        self.start.write(self.before)
        self.samples.write(0)

    def losses_now(self) -> Losses:
        """Of the weights held now: of each held-out split, the loss of each document."""
        found = {}
        for split in self.prepared.held_out:
            known = self._validation if split == "validation" else None
            losses = self._losses(split) if known is None else known
            assert losses is not None
            found[split] = losses
        return found

    def _losses(self, split: str, *, interruptible: bool = False) -> Floats | None:
        stop = self.session.stop
        return document_losses(
            self.learner.model,
            self.prepared.held_out[split],
            self.prepared.layout,
            budget=self.prepared.budget,
            interrupted=lambda: interruptible and stop.pressing,
        )

    def state(self) -> dict[str, Any]:
        """What was measured at the start, by the hash of its file."""
        return {"start_sha256": self.start.sha256}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self.before = self.start.read(state["start_sha256"])

    def shown(self, row: Row) -> dict[str, float | None]:
        """The figures of a progress line."""
        return {
            "loss": row["train/loss"],
            "norm": row["train/grad_norm"],
            "perplexity": row.get("validation/perplexity"),
        }


if __name__ == "__main__":
    sys.exit(launch("sft", SftConfig, train_sft))
