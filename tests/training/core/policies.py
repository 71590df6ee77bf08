"""Made-up runs of policies, for tests of what their reports say."""

from typing import Any

import numpy as np

from training.core.overoptimisation import Evaluation, OveroptimisationAlarm
from training.core.policy_reports import perplexity_report, policy_warnings
from training.core.policy_statistics import Answers, compare_answers, describe_answers


def made_answers(
    generator: np.random.Generator, *, better: float, length: float, each: int = 1, kl: float = 0.0
) -> Answers:
    """120 prompts' answers, as much better on the judge's scale, of so many tokens on average."""
    shape = (120, each)
    lengths = np.clip(generator.normal(length, 8, size=shape), 4, 64).astype(int)
    judge = generator.normal(better, 1, size=shape)
    return Answers(
        tokens=[[generator.integers(0, 300, size=size).tolist() for size in row] for row in lengths],
        characters=lengths * 4.0,
        ended=lengths < 64,
        score=judge + generator.normal(better, 0.5, size=shape),
        rewards={"model": judge, "format": np.ones(shape)},
        judge=judge,
        kl=np.full(shape, kl),
        kl_k3=np.full(shape, kl * 0.9),
        entropy=lengths * (2.1 - kl / 20),
    )


def made_course(*, exploited: bool = True) -> OveroptimisationAlarm:
    """Thirteen evaluations: the score rises throughout; the judge rises and, where exploited, falls again."""
    generator = np.random.default_rng(2)
    alarm = OveroptimisationAlarm()
    prompts = generator.normal(size=120)
    for number in range(13):
        far = number / 12
        judge = 1.6 * far - (2.2 * far**2 if exploited else 0.5 * far**2)
        noise = generator.normal(0, 0.3, size=(2, 120))
        score = prompts - 0.2 + 2.4 * far - 0.8 * far**2 + noise[0]
        alarm.observe(Evaluation(number * 10, score, prompts + judge + noise[1], 38 + 11 * far, 14.2 * far**1.7))
    return alarm


def ppo_report(*, exploited: bool = True) -> dict[str, Any]:
    """A report as ``recipes.ppo`` writes it."""
    generator = np.random.default_rng(1)
    before = made_answers(generator, better=0, length=38)
    after = made_answers(generator, better=0.6, length=47, kl=9.4)
    candidates = made_answers(generator, better=0, length=38, each=4)
    groups = [f"g{number // 2}" for number in range(120)]
    alarm = made_course(exploited=exploited)
    report = {
        "kind": "ppo",
        "steps": 120,
        "counts": {"read": 2600, "used": 2491, "dropped": {"too_long": 109}},
        "before": describe_answers(before),
        "after": describe_answers(after),
        **compare_answers(before, after, groups, seed=4, candidates=candidates),
        "rewards": [{"name": "model", "weight": 1.0}, {"name": "format", "weight": 0.2}],
        "judge": {
            "source": "made",
            "disjoint": True,
            "accuracy": {"value": 0.683, "low": 0.641, "high": 0.722, "pairs": 812, "prompts": 204},
        },
        "suspect": alarm.suspect,
        "kept_step": alarm.best_step,
        "curve": alarm.curve,
        "blind_pairs": {"written": 117, "dropped": {"equal answers": 3}},
    }
    return report | {"warnings": policy_warnings(report)}


def sft_report() -> dict[str, Any]:
    """A report as ``recipes.sft`` writes it."""
    generator = np.random.default_rng(3)
    tokens = generator.integers(20, 200, size=80).astype(float)
    losses = tokens * generator.normal(1.9, 0.2, size=80)
    groups = [f"g{number}" for number in range(80)]
    report = {
        "kind": "sft",
        "steps": 310,
        "counts": {"read": 900, "used": 880, "dropped": {"too_long": 20}},
        **perplexity_report(
            losses, tokens, groups, seed=1, before=losses + tokens * generator.normal(0.4, 0.05, size=80)
        ),
        "kept_step": 300,
    }
    return report | {"warnings": policy_warnings(report)}
