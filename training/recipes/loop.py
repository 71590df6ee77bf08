"""The loop that every training recipe shares: one step a turn, to the end of its course, through stops and resumes.

A recipe says what a step and a validation are (``TrainingLoop.take_step``, ``validate``); rows of figures, checkpoints,
early stopping, ``--stop-after`` and the answer to a request to stop are the same for all of them and stand here.
"""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic

import torch
from torch import nn
from tqdm import tqdm

from training.core.checkpoints import Checkpoint, CheckpointSaver, load_checkpoint, load_weights
from training.core.errors import StoppedBeforeStep, StopRequested, TrainingError
from training.core.files import read_json
from training.core.halving import MicroBatchBudget
from training.core.process import STOP_SECONDS
from training.core.runfolder import MetricsFile, StepFile, write_run
from training.core.schedule import Course, learning_rate
from training.recipes.configs import CommonConfig, Config, to_values
from training.recipes.launch import Session

SKIPPED_STEPS_IN_A_ROW = 10

Row = dict[str, float | None]


@dataclass(frozen=True)
class Progress:
    """How far the run is; stands in each checkpoint. ``step`` counts over all stages (models trained one after the
    other in one run), ``stage_step`` within one.

    ``skipped_in_a_row`` are the last steps of the stage that were skipped, up to now without one between that was not.
    ``best`` is the lowest validation loss of the stage, seen behind ``best_step`` (of the run), ``worse`` the
    validations since; ``ended`` says that early stopping ended the stage. ``budgets`` are the micro-batch sizes that
    were halved when memory ran out.
    """

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    best_step: int | None = None
    worse: int = 0
    ended: bool = False
    budgets: Mapping[str, int] | None = None


@dataclass(frozen=True)
class StepResult:
    """What a step came to: its row of figures, the updates left out (gradients not finite), and tokens forwarded."""

    row: Row
    skipped: int
    tokens: int


def progress_at(checkpoint: Checkpoint | None) -> Progress:
    """How far a checkpoint's run was; nowhere without one."""
    if checkpoint is None:
        return Progress()
    state = read_json(checkpoint.path / "state.json")
    return Progress(**{name: state[name] for name in asdict(Progress()) if name in state} | {"step": checkpoint.step})


def open_run(
    session: Session[Config], *, data_sha256: str, model_fingerprint: str, facts: dict[str, Any], from_step: int
) -> MetricsFile | None:
    """Note the attempt in ``run.json`` and open ``metrics.jsonl`` behind ``from_step``; None where others write."""
    session.step = from_step
    if not session.world.is_main:
        return None
    attempt = write_run(
        session.folder,
        recipe=session.recipe,
        config=to_values(session.config),
        data_sha256=data_sha256,
        model_fingerprint=model_fingerprint,
        facts=facts,
        world_size=session.world.size,
        from_step=from_step,
    )
    return MetricsFile(session.folder, attempt=attempt, from_step=from_step)


def set_rates(config: CommonConfig, optimizer: torch.optim.Optimizer, course: Course, step: int) -> float:
    """Give each group of parameters its learning rate of this step (from 1), a share of the group's ``peak``; returns
    that of ``--learning-rate``."""
    share = learning_rate(step, steps=course.steps, peak=1.0, warmup=config.warmup, schedule=config.schedule)
    for group in optimizer.param_groups:
        group["lr"] = share * group.get("peak", config.learning_rate)
    return share * config.learning_rate


class TrainingLoop(ABC, Generic[Config]):
    """The training of one stage: a turn is a step, its row, and the checkpoint that may be due behind it."""

    def __init__(
        self,
        session: Session[Any],
        *,
        course: Course,
        steps_in_all: int,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        budgets: Mapping[str, MicroBatchBudget],
        metrics: MetricsFile | None,
        progress: Progress,
        files: tuple[StepFile, ...] = (),
    ) -> None:
        """Args: ``parameters`` by name, in the optimizer's order; ``files`` are written beside ``metrics``."""
        self.session, self.course, self.steps_in_all = session, course, steps_in_all
        self.parameters, self.optimizer, self.budgets = dict(parameters), optimizer, budgets
        self.progress, self.metrics, self.files = progress, metrics, files
        self._asked = {name: budget.tokens for name, budget in budgets.items()}
        self.kept_step: int | None = None
        self.saver = CheckpointSaver(
            session.folder / "checkpoints",
            parameters=dict(parameters),
            optimizer=optimizer,
            keep=session.config.keep_checkpoints,
            saved_step=progress.step,
            writes=session.world.is_main,
        )

    # --- what a recipe says -------------------------------------------------------------------------------------------

    @abstractmethod
    def take_step(self, step: int) -> StepResult:
        """Step ``step`` of the stage, from 1.

        Raises:
            StoppedBeforeStep: asked to stop before anything that a checkpoint holds was changed.
        """

    @abstractmethod
    def validate(self, row: Row) -> float | None:
        """Note held-out figures in ``row``; the loss that early stopping goes by, None where there is none."""

    def state(self) -> dict[str, Any]:
        """More JSON values for a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""

    def protected_step(self) -> int | None:
        """The step whose checkpoint is kept, however old."""
        return self.progress.best_step

    def shown(self, row: Row) -> dict[str, float | None]:
        """The figures of a progress line."""
        return {
            "loss": row["train/loss"],
            "norm": row["train/grad_norm"],
            "accuracy": row.get("validation/accuracy"),
        }

    # --- what is the same for all -------------------------------------------------------------------------------------

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on behind a checkpoint."""
        state = load_checkpoint(checkpoint, parameters=self.parameters, optimizer=self.optimizer)
        for name, tokens in (self.progress.budgets or {}).items():
            self.budgets[name].tokens = min(self.budgets[name].tokens, tokens)
        self.restore(state)
        self.session.say(f"resuming after step {checkpoint.step}")

    def is_done(self) -> bool:
        """Whether the stage takes no further step."""
        return self.progress.ended or self.progress.stage_step >= self.course.steps

    def train(self) -> None:
        """Take the steps that are left, and put back the best weights where early stopping chose.

        Raises:
            StopRequested: asked to stop, with the last step in a checkpoint.
        """
        session = self.session
        last = session.config.stop_after or self.steps_in_all
        session.stop.grace_seconds = STOP_SECONDS
        with self._bar() as bar:
            while not self.is_done() and self.progress.step < last and not self._must_stop():
                try:
                    self._turn(bar)
                except StoppedBeforeStep:
                    break
            self.save()
        if self._must_stop() and not self.is_done() and self.progress.step < last:
            reason = session.stop.reason or "stopped with another process"
            raise StopRequested(f"{reason} after step {self.progress.step}")
        if self.is_done():
            self._take_best()

    def save(self) -> None:
        """Publish a checkpoint of the last step; the protected one is kept beside the newest."""
        if self.metrics is not None:
            self.metrics.sync()
        for file in self.files:
            file.sync()
        session = self.session
        if session.world.is_main or session.config.shard:
            state = asdict(replace(self.progress, budgets=self._halved())) | self.state()
            self.saver.save(self.progress.step, state=state, protect=self.protected_step())

    def _turn(self, bar: "tqdm[Any]") -> None:
        session, started = self.session, time.monotonic()
        stage_step, step = self.progress.stage_step + 1, self.progress.step + 1
        result = self.take_step(stage_step)
        in_a_row = self.progress.skipped_in_a_row + 1 if result.skipped else 0
        refuse_endless_skipping(in_a_row, step)
        seconds = time.monotonic() - started
        skipped = self.progress.skipped_steps + result.skipped
        self.progress = replace(
            self.progress, step=step, stage_step=stage_step, skipped_steps=skipped, skipped_in_a_row=in_a_row
        )
        row: Row = {
            **result.row,
            "train/skipped_steps": skipped,
            "time/step_seconds": round(seconds, 3),
            "time/tokens_per_second": round(result.tokens / seconds, 1),
        }
        if self._validation_is_due(stage_step):
            self._validate(row)
        session.step = step
        if self.metrics is not None:
            self.metrics.write(step, row)
            bar.update()
            if step % session.config.log_every == 0 or stage_step == self.course.steps:
                self._show(bar, step, row)
        overdue = session.world.from_main(self.saver.is_overdue()) if session.config.shard else self.saver.is_overdue()
        if step % session.config.checkpoint_every == 0 or self.protected_step() == step or overdue:
            self.save()

    def _validation_is_due(self, step: int) -> bool:
        """Whether validation stands behind this step of the stage; always behind the last."""
        every = self.session.config.evaluate_every
        due = step % every == 0 if every else self.course.ends_epoch(step)
        return due or step == self.course.steps

    def _validate(self, row: Row) -> None:
        started = time.monotonic()
        loss = self.validate(row)
        row["time/evaluation_seconds"] = round(time.monotonic() - started, 3)
        if (patience := getattr(self.session.config, "early_stopping", None)) and loss is not None:
            self._compare(loss, patience=patience)

    def _compare(self, loss: float, *, patience: int) -> None:
        if self.progress.best is None or loss < self.progress.best:
            self.progress = replace(self.progress, best=loss, best_step=self.progress.step, worse=0)
            return
        worse = self.progress.worse + 1
        self.progress = replace(self.progress, worse=worse, ended=worse >= patience)
        if self.progress.ended:
            self.session.say(f"no lower validation loss in {worse} validations: training ends after step "
                             f"{self.progress.step}")  # fmt: skip

    def _take_best(self) -> None:
        best = self.progress.best_step
        if best is not None and best != self.progress.step:
            self.take_weights(best)
            self.session.say(f"the weights after step {best} had the lowest validation loss")

    def take_weights(self, step: int) -> None:
        """Put the weights of a kept checkpoint back."""
        load_weights(self.session.folder / "checkpoints", step, parameters=self.parameters)
        self.kept_step = step

    def _must_stop(self) -> bool:
        return self.session.world.any(self.session.stop.requested, device=self.session.device)

    def _halved(self) -> dict[str, int] | None:
        found = {name: budget.tokens for name, budget in self.budgets.items()}
        return {name: tokens for name, tokens in found.items() if tokens < self._asked[name]} or None

    def _bar(self) -> "tqdm[Any]":
        return tqdm(
            total=self.steps_in_all,
            initial=self.progress.step,
            unit="step",
            disable=not (self.session.world.is_main and sys.stderr.isatty()),
        )

    def _show(self, bar: "tqdm[Any]", step: int, row: Row) -> None:
        """The step's figures: behind the bar on a terminal, as a plain line elsewhere."""
        words = {name: f"{value:.4f}" for name, value in self.shown(row).items() if value is not None}
        if bar.disable:
            figures = " ".join(f"{name} {value}" for name, value in words.items())
            self.session.say(f"step {step}/{self.steps_in_all} {figures} {row['time/step_seconds']} s")
        else:
            bar.set_postfix(words)


def refuse_endless_skipping(in_a_row: int, step: int) -> None:
    """A model that has diverged trains no further.

    Raises:
        TrainingError: the gradients of the last ten steps were not finite.
    """
    if in_a_row == SKIPPED_STEPS_IN_A_ROW:
        raise TrainingError(f"the gradients of {in_a_row} steps in a row were not finite, up to step {step}")
