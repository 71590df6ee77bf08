"""Watching a policy while it learns: held-out prompts answered again and again, the alarm, and tables of samples.

Each evaluation answers the same prompts with the same draws, so that two of them differ by the policy alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.core.errors import StopRequested
from training.core.kl import kl_estimate
from training.core.masked import row_sums, to_rows
from training.core.overoptimisation import Evaluation, OveroptimisationAlarm
from training.core.policy_statistics import Answers
from training.core.reward_sources.episodes import RewardSource, Scores
from training.core.runfolder import StepFile
from training.recipes.answering import Sampled, score_together
from training.recipes.configs import PpoConfig
from training.recipes.launch import Session
from training.recipes.loop import Row
from training.recipes.ppo_models import Models
from training.recipes.ppo_rollout import policy_figures, reference_log_probs, sample_responses
from training.recipes.prompts import PromptData, Prompts, drawn_numbers

EVALUATION, TABLE = "evaluation", "table"
TABLE_PROMPTS = 4


@dataclass(frozen=True)
class Answered:
    """Prompts with a policy's responses to them, and all that is known of these."""

    sampled: Sampled
    scores: Scores
    figures: Answers


def answer(
    session: Session[PpoConfig],
    models: Models,
    prompts: Prompts,
    numbers: Sequence[int],
    *,
    judge: RewardSource | None,
    purpose: str,
    each: int = 1,
    reference: bool = False,
) -> Answered | None:
    """``each`` responses to some prompts, scored and judged, in every process; None if asked to stop.

    Args:
        purpose: what the draws derive from, beside the seed and the place among these responses.
        reference: of the policy before training.
    """
    sampled = sample_responses(
        session, models, prompts, numbers, purpose=purpose, step=0, each=each, reference=reference
    )
    if sampled is None:
        return None
    scores = score_together(session, models.sources, sampled)
    judged = None if judge is None else score_together(session, [judge], sampled).total
    log_probs, entropy = policy_figures(session, models.reference if reference else models.policy, models, sampled)
    apart = log_probs - log_probs if reference else log_probs - reference_log_probs(session, models, sampled)

    def table(values: Sequence[float]) -> NDArray[np.float64]:
        return np.array(values, np.float64).reshape(len(numbers), each)

    def summed(flat: Tensor) -> NDArray[np.float64]:
        return table(row_sums(*to_rows(flat.double(), sampled.counts)).tolist())

    episodes = [sampled.episodes[start : start + each] for start in range(0, len(sampled.episodes), each)]
    figures = Answers(
        tokens=[[episode.spoken_ids for episode in responses] for responses in episodes],
        characters=table([len(episode.text) for episode in sampled.episodes]),
        ended=np.array([sample.ended for sample in sampled.samples]).reshape(len(numbers), each),
        score=table(scores.total),
        rewards={name: table(values) for name, values in scores.by_name.items()},
        judge=None if judged is None else table(judged),
        kl=summed(apart),
        kl_k3=summed(kl_estimate(apart, "k3")),
        entropy=summed(entropy),
    )
    return Answered(sampled, scores, figures)


class Watch:
    """The held-out prompts of the curves, and what was seen of them so far."""

    def __init__(
        self,
        session: Session[PpoConfig],
        models: Models,
        data: PromptData,
        judge: RewardSource | None,
        table: StepFile | None,
    ) -> None:
        """Args: ``table`` is the open ``samples.jsonl``, None in processes that write no files."""
        config = session.config
        self.session, self.models, self.data, self.judge, self.table = session, models, data, judge, table
        self.numbers = self.numbers_of(data.validation)
        in_reward = config.kl_coefficient if config.kl_place == "reward" else 0.0
        self.alarm = OveroptimisationAlarm(kl_target=config.kl_target, kl_coefficient=in_reward)
        self._before: Answered | None = None

    def numbers_of(self, prompts: Prompts) -> list[int]:
        """Which prompts of a split are answered: as many as --evaluation-prompts, drawn by the seed."""
        config = self.session.config
        return drawn_numbers(len(prompts), at_most=config.evaluation_prompts, seed=config.seed, purpose=EVALUATION)

    def evaluate(self, step: int) -> Row | None:
        """Answer the held-out prompts and ask the alarm; the figures for the metrics, None if asked to stop."""
        found = answer(
            self.session, self.models, self.data.validation, self.numbers, judge=self.judge, purpose=EVALUATION
        )
        if found is None:
            return None
        figures = found.figures
        assert figures.kl is not None
        evaluation = Evaluation(
            step=step,
            score=figures.score.mean(1).tolist(),
            judge=None if figures.judge is None else figures.judge.mean(1).tolist(),
            length=float(figures.lengths.mean()),
            kl=float(figures.kl.mean()),
        )
        for reason in self.alarm.observe(evaluation):
            self.session.say(f"suspect: {reason}")
        return {
            "validation/score": float(figures.score.mean()),
            **({} if figures.judge is None else {"validation/judge": float(figures.judge.mean())}),
            "validation/kl": evaluation.kl,
            "validation/length_mean": evaluation.length,
            "validation/eos_rate": float(figures.ended.mean()),
        }

    def write_table(self, step: int) -> None:
        """What a few prompts were answered before training, and are now.

        Raises:
            StopRequested: asked to stop; the step is dropped, or the table would lack it for good.
        """
        prompts = self.data.validation if self.numbers else self.data.train
        numbers = (self.numbers or list(range(len(prompts))))[:TABLE_PROMPTS]
        if self._before is None:
            self._before = answer(
                self.session, self.models, prompts, numbers, judge=None, purpose=TABLE, reference=True
            )
        after = answer(self.session, self.models, prompts, numbers, judge=None, purpose=TABLE)
        if self._before is None or after is None:
            reason = self.session.stop.reason or "stopped with another process"
            raise StopRequested(f"{reason} while samples of step {step} were written, the step dropped")
        if self.table is None:
            return
        for place, episode in enumerate(after.sampled.episodes):
            before = self._before.sampled.episodes[place]
            self.table.append(step, {
                "prompt": [{"role": message.role, "content": message.content} for message in episode.prompt],
                "before": before.text,
                "before_score": self._before.scores.total[place],
                "response": episode.text,
                "thinking": episode.thinking,
                "score": after.scores.total[place],
                "rewards": {name: values[place] for name, values in after.scores.by_name.items()},
                "ended": episode.ended,
            })  # fmt: skip
