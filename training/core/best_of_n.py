"""What choosing by score is worth: the standing with people of the response that a model picks among n.

All exact, by counting subsets; nothing is sampled.
"""

import math
from typing import Any

import numpy as np

from training.core.bootstrap import Floats, Ints, mean
from training.core.judgements import Judgements


def best_of_n(judgements: Judgements) -> dict[str, Any]:
    """The curve over n = 1 … N of the expected human standing of the pick among n random ones of a ranking's responses.

    A response's *standing* in a ranking is the share of its other responses that it beats, ties ½: 1 for a sole
    first, 0 for a sole last, ½ on average, so every curve begins at ½. N is the largest number of responses that at
    least half of the rankings are over, and all points are taken over the same rankings, those over N or more: were
    each point taken over those that have n, the curve would bend where other rankings come in, not because of the
    model.

    Judgements read with ``below`` are over the unranked responses too: each loses to everything placed, and beats any
    other unranked one with chance ½, as nothing is known of these two. So which of them is picked changes no point,
    and only what was judged parts one model from another.

    Returns:
        ``placed`` N (with ``below`` unranked ones included), ``rankings`` and ``points``: ``n``, and as statistics
        ``model`` (the highest score), ``longest`` (the most characters), ``oracle`` (the best standing) and
        ``against_longest`` (model − longest, paired).
        Without rankings, N is None and there are no points.
    """
    sizes = sorted((one.response.shape[1] for one in judgements.sizes for _ in one.ranking), reverse=True)
    if not sizes:
        return {"placed": None, "rankings": 0, "points": []}
    most = sizes[(len(sizes) - 1) // 2]
    rankings, curves = [], []
    for one in judgements.sizes:
        if one.response.shape[1] < most:
            continue
        standing = standings(one.tier)
        picks = (judgements.score[one.response], judgements.length[one.response], standing)
        curves.append(np.stack([expected_standing(by, standing, most) for by in picks]))
        rankings.append(one.ranking)
    model, longest, oracle = np.concatenate(curves, axis=1)
    group = judgements.group_of_prompt[judgements.ranking_prompt[np.concatenate(rankings)]]

    def at(values: Floats) -> Any:
        return mean(values, group, groups=judgements.groups)

    points = [
        {
            "n": n + 1,
            "model": at(model[:, n]),
            "longest": at(longest[:, n]),
            "oracle": at(oracle[:, n]),
            "against_longest": at(model[:, n] - longest[:, n]),
        }
        for n in range(most)
    ]
    return {"placed": most, "rankings": len(group), "points": points}


def standings(tier: Ints) -> Floats:
    """(R, K) tiers, 0 the best → (R, K): the share of the other responses that each beats, ties ½."""
    mine, other = tier[:, :, None], tier[:, None, :]
    beaten = (other > mine).sum(axis=2) + 0.5 * ((other == mine).sum(axis=2) - 1)
    found: Floats = beaten / (tier.shape[1] - 1)
    return found


def expected_standing(by: Floats, standing: Floats, most: int) -> Floats:
    """(R, most): the mean standing of the response with the largest ``by`` among n = 1 … most random ones of K.

    With L responses below and g at a response's value, itself included, the largest of n lies at that value in
    C(L + g, n) − C(L, n) of the C(K, n) choices; equal ones are picked equally often. ``by`` and ``standing`` (R, K).
    """
    count = by.shape[1]
    below = (by[:, None, :] < by[:, :, None]).sum(axis=2)
    equal = (by[:, None, :] == by[:, :, None]).sum(axis=2)
    curve = []
    for n in range(1, most + 1):
        subsets = np.array([math.comb(k, n) for k in range(count + 1)], np.float64)
        chance = (subsets[below + equal] - subsets[below]) / (equal * subsets[count])
        curve.append((chance * standing).sum(axis=1))
    return np.stack(curve, axis=1)
