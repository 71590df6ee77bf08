"""The alarm for over-optimisation: the run's own reward rises and what it stands for no longer does.

Three signs, asked at each evaluation on the same held-out prompts, with these defaults:

- **judge**: the judge's mean score has fallen against the best evaluation so far by more than 2 + √ln k standard errors
  of the paired difference over prompts, while the mean training score is higher than it was there. k is the number of
  evaluations that the best was chosen among: of k equally good ones the luckiest lies up to √(2 ln k) of its own
  standard errors too high, which is √ln k of those of a difference. So the first comparison, with the start, asks for
  two standard errors; and noise alone, fresh at each evaluation, raises the alarm in one to two of a hundred runs with
  one evaluation after the start, in about five with twenty.
  The best and not the start is compared with, because scores of what people want rise at first and fall later (Gao et
  al. 2022, arXiv 2210.10760).
- **length**: the mean response is half as long again as at the start.
- **KL**: the mean KL to the reference exceeds three times its target. Without a target the KL raises no alarm: how far
  is too far depends on the length of responses and on the reward, and the report warns instead.

A run that has been suspect once stays so, and its best step is looked for no further.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.core.bootstrap import Floats

JUDGE_FALLS_BY = 2.0  # standard errors
LENGTH_GROWS_TO = 1.5  # times the start
KL_EXCEEDS = 3.0  # times the target
# Fewer prompts give no standard error to rely on: the judge is then not asked.
FEWEST_PROMPTS = 8
# A fall by less than this share of the judge's spread over prompts is nothing, however sure: rounding differs so much
# where not one response has changed.
NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation on the held-out prompts measured; all of a run's are over the same prompts in one order.

    Attributes:
        step: of the run; 0 is the start, before any training.
        score: (P,) what is trained for (all reward sources together, without KL), mean over a prompt's responses.
        judge: (P,) of a judge that is not trained against; None where there is none.
        length: mean tokens of a response.
        kl: mean KL of a response to the reference policy, nats.
    """

    step: int
    score: Sequence[float]
    judge: Sequence[float] | None
    length: float
    kl: float


class OveroptimisationAlarm:
    """Watches the evaluations of a run; its ``state`` goes into checkpoints.

    Attributes:
        suspect: None, or ``{"step": of the first alarm, "reasons": [sentences]}``, one reason for each kind of sign.
        best_step: of the evaluation with the highest mean judge score; without a judge, with the highest
            mean score − ``kl_coefficient`` · KL, which is what the run maximises. The first of equals; None before the
            first evaluation. Its checkpoint is the one to keep; 0 means that nothing trained was better.
        curve: ``{"step", "kl", "score", "judge", "length"}`` of each evaluation, as the report shows them.
    """

    def __init__(self, *, kl_target: float | None = None, kl_coefficient: float = 0.0) -> None:
        self.kl_target = kl_target
        self.kl_coefficient = kl_coefficient
        self.suspect: dict[str, Any] | None = None
        self.curve: list[dict[str, Any]] = []
        self._kinds: list[str] = []
        self._best: dict[str, Any] | None = None

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation so far."""
        return None if self._best is None else int(self._best["step"])

    def observe(self, found: Evaluation) -> list[str]:
        """Take an evaluation in; return what it newly gives as reasons for suspicion, in words.

        Raises:
            ValueError: a figure is not finite, the prompts are not as many as before, a judge came or went, or the
                step is not after the last one.
        """
        score = np.asarray(found.score, np.float64)
        judge = None if found.judge is None else np.asarray(found.judge, np.float64)
        self._check(found, score, judge)
        point = {"step": found.step, "kl": float(found.kl), "score": float(score.mean())}
        mean_judge = None if judge is None else float(judge.mean())
        self.curve.append(point | {"judge": mean_judge, "length": float(found.length)})
        signs = {
            "judge": self._judge_sign(found.step, score, judge),
            "length": self._length_sign(found),
            "kl": self._kl_sign(found),
        }
        new = {kind: reason for kind, reason in signs.items() if reason is not None and kind not in self._kinds}
        if new:
            self._kinds += new
            self.suspect = self.suspect or {"step": found.step, "reasons": []}
            self.suspect["reasons"] += new.values()
        if self.suspect is None:
            self._take_if_best(found, score, judge)
        return list(new.values())

    def state(self) -> dict[str, Any]:
        """What ``load`` needs to go on, for JSON."""
        return {"suspect": self.suspect, "curve": self.curve, "kinds": self._kinds, "best": self._best}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        suspect = state["suspect"]
        self.suspect = None if suspect is None else {"step": suspect["step"], "reasons": list(suspect["reasons"])}
        self.curve = [dict(point) for point in state["curve"]]
        self._kinds = list(state["kinds"])
        self._best = None if state["best"] is None else dict(state["best"])

    def _check(self, found: Evaluation, score: Floats, judge: Floats | None) -> None:
        figures = [score, np.array([found.length, found.kl])] + ([] if judge is None else [judge])
        if not len(score) or not all(np.isfinite(part).all() for part in figures):
            raise ValueError(f"the evaluation of step {found.step} has no figures, or some that are not finite")
        if judge is not None and judge.shape != score.shape:
            raise ValueError(f"{len(judge)} judge scores of {len(score)} prompts")
        if self._best is None:
            return
        if found.step <= self.curve[-1]["step"]:
            raise ValueError(f"step {found.step} was evaluated after step {self.curve[-1]['step']}")
        if len(score) != len(self._best["score"]) or (judge is None) != (self._best["judge"] is None):
            raise ValueError("evaluations of one run are over the same prompts, all with a judge or all without")

    def _judge_sign(self, step: int, score: Floats, judge: Floats | None) -> str | None:
        if judge is None or self._best is None or len(judge) < FEWEST_PROMPTS:
            return None
        then_judge, then_score = np.array(self._best["judge"]), np.array(self._best["score"])
        change, risen = judge - then_judge, float((score - then_score).mean())
        fall, error = -float(change.mean()), float(change.std(ddof=1)) / math.sqrt(len(change))
        # The evaluations before this one, of which the best is one.
        asked = JUDGE_FALLS_BY + math.sqrt(math.log(len(self.curve) - 1))
        if risen <= 0 or fall <= NEGLIGIBLE * float(then_judge.std()):
            return None
        times = fall / error if error else math.inf
        if normal_deviate(times, degrees=len(change) - 1) <= asked:
            return None
        errors = f"{times:.1f} standard errors" if times < 100 else "over a hundred standard errors"
        return (
            f"At step {step} the judge's score is {fall:.3f} lower than at step {self.best_step} ({errors}) while the "
            f"training score is {risen:.3f} higher."
        )

    def _length_sign(self, found: Evaluation) -> str | None:
        begin = self.curve[0]["length"]
        if found.length < LENGTH_GROWS_TO * max(begin, 1.0):
            return None
        grown = f" ({(found.length / begin - 1) * 100:+.0f} %)" if begin else ""
        now = f"At step {found.step} responses have {found.length:.1f} tokens on average"
        return f"{now}, {begin:.1f} at the start{grown}."

    def _kl_sign(self, found: Evaluation) -> str | None:
        if self.kl_target is None or found.kl <= KL_EXCEEDS * self.kl_target:
            return None
        times = found.kl / self.kl_target
        words = f"{times:.1f}" if times < 100 else f"{times:,.0f}"
        return f"At step {found.step} the KL to the reference is {found.kl:.3g} nats, {words} times its target."

    def _take_if_best(self, found: Evaluation, score: Floats, judge: Floats | None) -> None:
        worth = float(score.mean()) - self.kl_coefficient * found.kl if judge is None else float(judge.mean())
        if self._best is None or worth > self._best["worth"]:
            self._best = {
                "step": found.step,
                "worth": worth,
                "score": score.tolist(),
                "judge": None if judge is None else judge.tolist(),
            }


def normal_deviate(t: float, *, degrees: int) -> float:
    """The normal deviate about as rare as Student's t with so many degrees of freedom (Wallace 1959): few prompts make
    a standard error that is itself uncertain, and t = 2 of seven degrees is no more than a deviate of 1.7."""
    shrunk = math.sqrt(degrees * math.log1p(t * t / degrees))
    return math.copysign(shrunk * (8 * degrees + 1) / (8 * degrees + 3), t)
