"""Small prompts with rankings, for the tests of what a report says."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.core.examples import Example, JudgedRanking


def ranking(
    tiers: Sequence[Sequence[int]],
    *,
    by: int = -1,
    task: int = -1,
    strengths: Sequence[int | None] = (),
    machine: bool = False,
    unranked: Sequence[int] = (),
) -> JudgedRanking:
    """One ranking of places, the best tier first."""
    said = tuple(strengths) or (None,) * (len(tiers) - 1)
    return JudgedRanking(tuple(map(tuple, tiers)), tuple(unranked), said, 1.0, by, machine, task)


def example(lengths: Sequence[int], *rankings: JudgedRanking | Sequence[Sequence[int]], group: int = 0) -> Example:
    """A prompt whose responses have these lengths; a ranking may be given as its tiers alone."""
    whole = tuple(one if isinstance(one, JudgedRanking) else ranking(one) for one in rankings)
    return Example(group, tuple(lengths), whole)


def partial(data: Sequence[Example], *, seed: int) -> list[Example]:
    """The same with rankings that place only their best one, two, … tiers, and leave the rest unranked."""
    generator = np.random.default_rng(seed)

    def cut(judged: JudgedRanking) -> JudgedRanking:
        kept = int(generator.integers(0, len(judged.tiers) + 1))
        rest = [place for tier in judged.tiers[kept:] for place in tier]
        generator.shuffle(rest)
        said = judged.strengths[: max(0, kept - 1)]
        return replace(judged, tiers=judged.tiers[:kept], strengths=said, unranked=tuple(rest))

    return [replace(one, rankings=tuple(map(cut, one.rankings))) for one in data]


def random_split(
    prompts: int, *, seed: int = 0, most: int = 6, annotators: int = 8, noise: float = 1.0
) -> tuple[list[Example], list[list[float]]]:
    """Prompts with two rankings of one task each, ties among them, and scores that know some of the taste."""
    generator = np.random.default_rng(seed)
    examples, scores = [], []
    for number in range(prompts):
        count = int(generator.integers(2, most + 1))
        quality = generator.normal(size=count)
        rankings = []
        for annotator in generator.choice(annotators, size=2, replace=False).tolist():
            seen = np.round((quality + noise * generator.normal(size=count)) * 1.5)
            tiers = [np.flatnonzero(seen == value).tolist() for value in sorted(set(seen.tolist()), reverse=True)]
            said = [None if one == 0 else int(one) for one in generator.integers(0, 4, size=len(tiers) - 1)]
            rankings.append(ranking(tiers, by=annotator, task=number, strengths=said, machine=annotator == 0))
        examples.append(
            example((40 + 20 * quality + 15 * generator.normal(size=count)).astype(int), *rankings, group=number // 2)
        )
        scores.append((quality + noise * generator.normal(size=count)).tolist())
    return examples, scores
