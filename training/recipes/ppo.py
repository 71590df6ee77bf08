"""``python -m training.recipes.ppo``: a policy by reinforcement learning from a reward.

Sample responses to prompts, score them, shape the scores into rewards, estimate advantages, and take a few clipped
steps on minibatches: PPO (Schulman et al. 2017, arXiv 1707.06347) as it is used on language models (Ziegler et al.
2019, arXiv 1909.08593; Ouyang et al. 2022, arXiv 2203.02155), with RLOO, GRPO and Dr. GRPO as other ways to estimate
advantages in the same loop.

Writes DIR/model (loads with ``AutoModelForCausalLM``), run.json, metrics.jsonl, samples.jsonl, report.json with its
page and plots, blind pairs for people to judge, checkpoints and exit.json. The file reads downward: begin, step by
step, finish. ``ppo_setup`` is what stands before a step, ``ppo_rollout`` and ``ppo_learn`` the step, ``ppo_watch`` what
is looked at between steps, and ``ppo_finish`` what stands behind the last.
"""

import math
import sys
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch

from training.core.advantages import explained_variance
from training.core.checkpoints import newest_good_checkpoint
from training.core.errors import StopRequested, TrainingError
from training.core.masked import row_sums
from training.core.reward_sources.episodes import RewardSource
from training.core.runfolder import MetricsFile
from training.core.shaping import RunningScale
from training.recipes.configs import PpoConfig
from training.recipes.launch import Session, is_finished, launch
from training.recipes.loop import Progress, Row, StepResult, TrainingLoop, open_run, progress_at, set_rates
from training.recipes.ppo_finish import finish_policy
from training.recipes.ppo_judge import given_judge, made_judge
from training.recipes.ppo_learn import LearningFigures, learn
from training.recipes.ppo_lesson import Lesson, divergence, make_controller, make_lesson
from training.recipes.ppo_rollout import make_rollout
from training.recipes.ppo_setup import Prepared, check_inputs, open_samples, prepare
from training.recipes.ppo_watch import Watch


def train_ppo(session: Session[PpoConfig]) -> str:
    """Train, evaluate and save; returns what was done, in one line.

    Raises:
        UsageError: bad data, model, reward or resume.
        TrainingError: a reward cannot be had, the gradients stay non-finite, or memory does not suffice.
        StopRequested: asked to stop; the last published checkpoint holds.
    """
    inputs = check_inputs(session)
    if is_finished(session):
        return "already finished"
    prepared = prepare(session, inputs)
    checkpoint = newest_good_checkpoint(session.folder / "checkpoints")
    progress = progress_at(checkpoint)
    judging = (session, prepared.data, prepared.encoder, prepared.models.budgets["scoring"])
    given = given_judge(*judging)
    metrics = open_run(
        session,
        data_sha256=inputs.file.sha256,
        model_fingerprint=inputs.model_fingerprint,
        facts=prepared.facts,
        from_step=progress.step,
    )
    judge, judge_facts = given or made_judge(*judging)
    run = PpoRun(session, prepared, judge, metrics, progress)
    if checkpoint is not None:
        run.load(checkpoint)
    run.look_at_the_start()
    run.train()
    if not run.is_done():
        return f"stopped after step {run.progress.step} of {run.steps_in_all}, as --stop-after says"
    run.keep_the_best_if_suspect()
    session.begin_finish(run.progress.step)
    return finish_policy(session, prepared, run.watch, judge_facts, run.progress, kept_step=run.kept_step)


class PpoRun(TrainingLoop[PpoConfig]):
    """The loop of PPO. One step is one rollout with all its inner epochs."""

    def __init__(
        self,
        session: Session[PpoConfig],
        prepared: Prepared,
        judge: RewardSource | None,
        metrics: MetricsFile | None,
        progress: Progress,
    ) -> None:
        self.prepared, self.models = prepared, prepared.models
        self.controller = make_controller(session.config)
        self.scale = RunningScale() if session.config.normalise_reward else None
        samples = open_samples(session, from_step=progress.step)
        self.watch = Watch(session, prepared.models, prepared.data, judge, samples)
        super().__init__(
            session,
            course=prepared.course,
            steps_in_all=prepared.course.steps,
            parameters=prepared.models.parameters,
            optimizer=prepared.models.optimizer,
            budgets=prepared.models.budgets,
            metrics=metrics,
            progress=progress,
            files=() if samples is None else (samples,),
        )

    def take_step(self, step: int) -> StepResult:
        """Sample → score → shape rewards → advantages → minibatch epochs."""
        session, config, models = self.session, self.session.config, self.models
        rate = set_rates(config, models.optimizer, self.course, step)
        prompts = self.course.batch(step)
        rollout = make_rollout(session, models, self.prepared.data.train, prompts, step)
        beta = self.controller.coefficient
        kl, k3 = divergence(rollout)
        if not math.isfinite(kl):
            raise TrainingError(f"the divergence of step {step} from the reference is {kl}: the policy has diverged")
        lesson = make_lesson(config, rollout, kl_coefficient=beta, scale=self.scale)
        learned = learn(session, models, lesson, step=step, kl_coefficient=beta, ptx=self.prepared.ptx)
        self.controller.update(kl, episodes=len(rollout.sampled.episodes))
        row = figures_of(lesson, learned, kl=kl, k3=k3, beta=beta) | {"train/learning_rate": rate}
        if step % config.sample_every == 0 or step == self.course.steps:
            self.watch.write_table(step)
        return StepResult(
            row, learned.skipped, learned.forwarded + sum(example.tokens for example in rollout.sampled.examples)
        )

    def validate(self, row: Row) -> None:
        """Answer the held-out prompts, and ask the alarm."""
        if not self.watch.numbers:
            return
        found = self.watch.evaluate(self.progress.step)
        if found is None:
            # The alarm must not depend on when somebody asked to stop.
            reason = self.session.stop.reason or "stopped with another process"
            raise StopRequested(f"{reason} in the evaluation after step {self.progress.step}, dropped")
        row.update(found)

    def look_at_the_start(self) -> None:
        """The first point of the curves: what the policy answers before any step."""
        if self.progress.step or not self.watch.numbers:
            return
        if self.watch.evaluate(0) is None:
            raise StopRequested(f"{self.session.stop.reason or 'stopped with another process'} before the first step")
        self.watch.write_table(0)

    def keep_the_best_if_suspect(self) -> None:
        """Where the alarm was raised, the weights that were judged best are the ones to publish."""
        best = self.watch.alarm.best_step
        if not self.watch.alarm.suspect or best == self.progress.step:
            return
        if not best:
            self.session.say("suspect: no step was judged better than the start; the last weights are published")
            return
        self.take_weights(best)
        self.session.say(f"suspect: the weights after step {best}, judged best, are kept")

    def protected_step(self) -> int | None:
        """The step that was judged best."""
        return self.watch.alarm.best_step or None

    def state(self) -> dict[str, Any]:
        """KL weight, running scale and alarm; all else derives from seed and step."""
        return {
            "kl_coefficient": self.controller.coefficient,
            "reward_scale": None if self.scale is None else self.scale.state(),
            "alarm": self.watch.alarm.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self.controller.coefficient = state["kl_coefficient"]
        if self.scale is not None:
            self.scale = RunningScale.from_state(state["reward_scale"])
        self.watch.alarm.load(state["alarm"])

    def shown(self, row: Row) -> dict[str, float | None]:
        """The figures of a progress line."""
        names = ("score_mean", "kl", "entropy", "length_mean")
        return {name.removesuffix("_mean"): row[f"ppo/{name}"] for name in names}


def figures_of(lesson: Lesson, learned: LearningFigures, *, kl: float, k3: float, beta: float) -> Row:
    """The row of a step; means over responses or over their tokens, never over padding."""
    rollout, updates = lesson.rollout, max(1, learned.updates)
    mask, tokens = rollout.mask, max(1.0, learned.tokens)
    gap = (rollout.log_probs - rollout.sampler_log_probs).abs()
    explained = None
    if lesson.returns is not None and rollout.values is not None:
        explained = explained_variance(
            rollout.values, lesson.returns, torch.ones_like(rollout.values, dtype=torch.bool)
        )
    counts = rollout.sampled.counts
    return {
        "train/loss": learned.policy_loss / updates,
        "train/value_loss": learned.value_loss / updates if rollout.values is not None else None,
        "train/grad_norm": fmean(learned.policy_norms) if learned.policy_norms else None,
        "train/value_grad_norm": fmean(learned.value_norms) if learned.value_norms else None,
        "train/ptx_loss": learned.ptx_loss / updates,
        "ppo/score_mean": fmean(rollout.scores.total),
        "ppo/reward_mean": row_sums(lesson.rewards, mask).mean().item(),
        **{f"ppo/reward/{name}": fmean(scores) for name, scores in rollout.scores.by_name.items()},
        "ppo/kl": kl,
        "ppo/kl_k3": k3,
        "ppo/kl_coefficient": beta,
        "ppo/entropy": rollout.entropy.mean().item(),
        "ppo/clip_fraction": learned.clipped / tokens,
        "ppo/value_clip_fraction": learned.value_clipped / max(1.0, learned.value_tokens)
        if rollout.values is not None
        else None,
        "ppo/ratio_max": learned.ratio_max,
        "ppo/inner_kl": learned.apart / max(1.0, learned.apart_tokens),
        "ppo/inner_epochs": learned.epochs,
        "ppo/explained_variance": explained,
        "ppo/length_mean": fmean(counts),
        "ppo/eos_rate": rollout.ended.float().mean().item(),
        "ppo/sampler_gap_mean": gap.mean().item(),
        "ppo/sampler_gap_max": gap.max().item(),
        **{f"time/{phase}_seconds": round(seconds, 3) for phase, seconds in rollout.seconds.items()},
        "time/learn_seconds": round(learned.seconds, 3),
    }


if __name__ == "__main__":
    sys.exit(launch("ppo", PpoConfig, train_ppo))
