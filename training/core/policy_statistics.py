"""What a policy's answers to held-out prompts are worth beside another's, and what they look like.

Everything in float64 NumPy, from the responses alone. Each prompt counts once, whatever the number of its responses.
Every interval is over draws of whole split groups, and all see the same draws (``bootstrap``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.core.best_of_n import expected_standing
from training.core.bootstrap import Floats, Ints, Statistic, mean, with_intervals

# n of the n-grams whose repetition within a response is counted.
REPEATED_GRAMS = 4
# Standard deviation of the normal priors of the length-controlled fit: weak, and finite where data are separable.
PRIOR_DEVIATION = 2.5
# How many values (draws × pairs) the fits hold at once; bounds memory.
VALUES_AT_ONCE = 1_000_000
NEWTON_STEPS = 60

Tokens = Sequence[Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Answers:
    """What one policy answered to P prompts, with S responses to each.

    Attributes:
        tokens: P × S responses, each the sampled ids, the stop token left out.
        characters: (P, S) of the text that the judge saw.
        ended: (P, S), whether it ended by itself and was not cut off.
        score: (P, S), what is trained for: all reward sources together, without KL.
        rewards: (P, S) by source.
        judge: (P, S); None where there is no judge.
        kl: (P, S), Σ_t k1 over the response's tokens, nats; None, as the next two, where it was not computed.
        kl_k3: (P, S), Σ_t k3, nats.
        entropy: (P, S), Σ_t entropy of the next token's distribution, nats.
    """

    tokens: Tokens
    characters: Floats
    ended: NDArray[np.bool_]
    score: Floats
    rewards: Mapping[str, Floats]
    judge: Floats | None
    kl: Floats | None = None
    kl_k3: Floats | None = None
    entropy: Floats | None = None

    @property
    def lengths(self) -> Floats:
        """(P, S) tokens of each response."""
        return np.array([[len(one) for one in responses] for responses in self.tokens], np.float64)


def describe_answers(found: Answers) -> dict[str, Any]:
    """The figures of ``before`` and ``after`` in a policy's report; a figure is None where there is nothing to make it
    from.

    ``score``, ``judge``, ``reward`` (by source), ``length_mean`` (tokens), ``eos_rate``, ``repetition`` and ``kl``
    (nats a response) are means over responses; ``kl_k3`` and ``entropy`` are means over tokens; ``distinct_1`` …
    ``distinct_3`` are of all responses together.
    """
    tokens = found.lengths.sum()
    every = [response for responses in found.tokens for response in responses]
    return {
        "score": float(found.score.mean()),
        "judge": None if found.judge is None else float(found.judge.mean()),
        "reward": {name: float(values.mean()) for name, values in found.rewards.items()},
        "length_mean": float(found.lengths.mean()),
        "eos_rate": float(found.ended.mean()),
        **{f"distinct_{n}": distinct_share(every, n) for n in (1, 2, 3)},
        "repetition": float(np.mean([repetition(response) for response in every])),
        "kl": None if found.kl is None else float(found.kl.mean()),
        **{
            name: float(values.sum() / tokens) if tokens and values is not None else None
            for name, values in (("kl_k3", found.kl_k3), ("entropy", found.entropy))
        },
    }


def compare_answers(
    before: Answers,
    after: Answers,
    split_groups: Sequence[str],
    *,
    seed: int,
    candidates: Answers | None = None,
) -> dict[str, Any]:
    """How a trained policy's answers compare with those of the policy it began as, prompt by prompt.

    Args:
        before: of the policy at the start; with R responses to each prompt.
        after: of the trained policy, to the same prompts in the same order; with S responses.
        split_groups: (P,), what is drawn for the intervals.
        candidates: N further samples of the policy at the start, to choose the one with the highest ``score`` from.
            They must not be those in ``before``: a sample beside itself is a tie.

    Returns:
        ``win_rate`` and ``length_controlled_win_rate`` (None without a judge); ``best_of_N`` with the win rate of the
        chosen candidate and its ``kl`` (None without a judge or candidates); ``change``: after − before by name, each
        with an interval. All are ``{"value", "low", "high", "prompts", …}``.

    Raises:
        ValueError: there is no prompt, or the two did not answer equally many.
    """
    if not len(split_groups) == len(before.tokens) == len(after.tokens) > 0:
        raise ValueError(f"answers to {len(before.tokens)} and {len(after.tokens)} of {len(split_groups)} prompts")
    group = number_groups(split_groups)
    found: dict[str, Any] = {"win_rate": None, "length_controlled_win_rate": None}
    if before.judge is not None and after.judge is not None:
        gap = after.characters[:, :, None] - before.characters[:, None, :]
        found["win_rate"] = win_rate(after.judge, before.judge, group)
        found["length_controlled_win_rate"] = length_controlled_win_rate(after.judge, before.judge, gap, group)
    if candidates is not None:
        found[f"best_of_{candidates.score.shape[1]}"] = (
            None if candidates.judge is None or before.judge is None
            else best_of_n_win_rate(candidates.score, candidates.judge, before.judge, group)
        )  # fmt: skip
    found["change"] = {
        name: paired_difference(of(after), of(before), group)
        for name, of in _PAIRED.items()
        if name != "judge" or (before.judge is not None and after.judge is not None)
    } | {
        f"reward/{name}": paired_difference(values, before.rewards[name], group)
        for name, values in after.rewards.items()
    }
    written: dict[str, Any] = with_intervals(found, seed=seed)
    return written


def number_groups(split_groups: Sequence[str]) -> Ints:
    """(P,): each prompt's group, numbered from 0 without gaps."""
    return np.unique(np.array(split_groups, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)


# --- which is better -------------------------------------------------------------------------------------------------


def wins(policy: Floats, reference: Floats) -> Floats:
    """(P, S, R): 1 where the policy's response scores higher than the reference's, ½ where equal. (P, S) and (P, R)."""
    found: Floats = (np.sign(policy[:, :, None] - reference[:, None, :]) + 1) / 2
    return found


def win_rate(policy: Floats, reference: Floats, group: Ints) -> Statistic:
    """The chance that the policy's response to a prompt beats the reference's, ties ½: over all S · R pairs of a
    prompt, then over prompts.

    Args:
        policy: (P, S) judge's scores.
        reference: (P, R).
        group: (P,), numbered from 0.
    """
    return over_prompts(wins(policy, reference).mean(axis=(1, 2)), group)


def length_controlled_win_rate(policy: Floats, reference: Floats, gap: Floats, group: Ints) -> Statistic:
    """What the win rate would be were both responses equally long, by a logistic model of the wins.

    AlpacaEval's idea (Dubois et al. 2024, arXiv 2404.04475) without its term for a prompt's difficulty, which takes
    many policies to learn. Fitted are a and b of

        P(the policy's response wins) = σ(a + b · tanh(Δ / s)),

    with Δ the difference of lengths, policy − reference, and s the root of the mean of Δ² over all pairs (a prompt's
    pairs weigh 1 / (S · R) each; fixed over the draws). The figure is σ(a), the chance at Δ = 0. A tie is half a win
    and half a loss. The fit maximises Σ_prompts log-likelihood − (a² + b²) / (2 · 2.5²): weak normal priors, so that
    figures stay finite where every response wins or where wins follow length without exception; together they weigh
    less than one prompt.

    Where nearly all responses of the policy are longer, there is nothing to learn the chance at Δ = 0 from but the
    model's form: ``longer``, the share of pairs in which the policy's is (equal ones ½), stands beside the figure.

    Args:
        gap: (P, S, R), Δ.
    """
    won = wins(policy, reference)
    pairs = won.shape[1] * won.shape[2]
    scale = float(np.sqrt(np.mean(gap**2)))
    slope = np.tanh(gap / scale) if scale else np.zeros_like(gap)
    groups = int(group.max()) + 1 if len(group) else 0
    of_pair = np.repeat(group, pairs)

    def fitted(totals: Floats) -> Floats:
        """(…, G) how often each group was drawn → (…) the figure."""
        draws = totals.reshape(-1, groups)
        at_once = max(1, VALUES_AT_ONCE // max(1, len(of_pair)))
        parts = [
            fit_length_model(won.ravel(), slope.ravel(), draws[start : start + at_once, of_pair] / pairs)[:, 0]
            for start in range(0, len(draws), at_once)
        ]
        found: Floats = 1 / (1 + np.exp(-np.concatenate(parts)))
        return found.reshape(totals.shape[:-1])

    longer = float(((np.sign(gap) + 1) / 2).mean()) if gap.size else None
    # The sums that are drawn are how often each group is: the fit is no function of fewer.
    return Statistic(np.eye(groups), fitted, {"prompts": len(won), "longer": longer})


def fit_length_model(won: Floats, slope: Floats, weight: Floats) -> Floats:
    """(D, 2): a and b that maximise Σ_m w_dm (y_m ln p_m + (1 − y_m) ln(1 − p_m)) − (a² + b²) / (2 · 2.5²), with
    p = σ(a + b x), for D sets of weights at once.

    Newton's method from 0. Steps are cut to length 1: the curvature changes by no more than e^√2 in a step then, so
    that each goes uphill.

    Args:
        won: (M,) y, between 0 and 1.
        slope: (M,) x, between −1 and 1.
        weight: (D, M) w.
    """
    prior = 1 / PRIOR_DEVIATION**2
    found = np.zeros((len(weight), 2))
    columns = np.stack([np.ones_like(slope), slope])  # (2, M)
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(found @ columns)))  # (D, M)
        uphill = (weight * (won - chance)) @ columns.T - prior * found
        spread = weight * chance * (1 - chance)
        products = np.stack([spread.sum(axis=1), spread @ slope, spread @ slope**2])
        first, both, second = products[0] + prior, products[1], products[2] + prior
        step = np.stack([second * uphill[:, 0] - both * uphill[:, 1], first * uphill[:, 1] - both * uphill[:, 0]], 1)
        step /= (first * second - both**2)[:, None]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        found += step / np.maximum(length, 1)
        if not length.size or length.max() < 1e-9:
            break
    return found


def best_of_n_win_rate(score: Floats, judge: Floats, reference: Floats, group: Ints) -> Statistic:
    """The win rate of that of N samples which the training score prefers: what choosing is worth without training.

    Candidates with equal scores are chosen equally often.

    Args:
        score: (P, N), what is chosen by.
        judge: (P, N), of the candidates.
        reference: (P, R), of what the chosen one is compared with; other samples than the candidates.
        group: (P,).

    Returns:
        beside the figure ``n`` and ``kl``, ln N − (N − 1) / N nats: the KL of the chosen one to the policy at most.
    """
    of = score.shape[1]
    standing = wins(judge, reference).mean(axis=2)
    beside = {"n": of, "kl": float(np.log(of) - (of - 1) / of)}
    return over_prompts(expected_standing(score, standing, of)[:, -1], group, beside)


def paired_difference(after: Floats, before: Floats, group: Ints) -> Statistic:
    """after − before, (P, S) and (P, R): the mean over prompts of the difference of a prompt's means."""
    return over_prompts(after.mean(axis=1) - before.mean(axis=1), group)


def over_prompts(values: Floats, group: Ints, beside: dict[str, Any] | None = None) -> Statistic:
    """The mean of values (P,), one a prompt."""
    groups = int(group.max()) + 1 if len(group) else 0
    return mean(values, group, groups=groups, beside={"prompts": len(values), **(beside or {})})


# --- what they look like ---------------------------------------------------------------------------------------------


def distinct_share(responses: Sequence[Sequence[int]], n: int) -> float | None:
    """Distinct-n: different n-grams of all responses together, over all n-grams (Li et al. 2016, arXiv 1510.03055).

    It falls as there is more text, so only sets of as many and as long responses compare. None without n-grams.
    """
    grams = [gram for response in responses for gram in n_grams(response, n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(response: Sequence[int], n: int = REPEATED_GRAMS) -> float:
    """The share of a response's n-grams that stood in it before (seq-rep-n of Welleck et al. 2019, arXiv 1908.04319).

    0 where it has none.
    """
    grams = n_grams(response, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def n_grams(response: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """All runs of n neighbouring tokens, in order."""
    return list(zip(*(response[start:] for start in range(n)), strict=False))


def _repetitions(found: Answers) -> Floats:
    return np.array([[repetition(one) for one in responses] for responses in found.tokens])


def _judged(found: Answers) -> Floats:
    assert found.judge is not None
    return found.judge


_PAIRED: dict[str, Callable[[Answers], Floats]] = {
    "score": lambda found: found.score,
    "judge": _judged,
    "length_mean": lambda found: found.lengths,
    "eos_rate": lambda found: found.ended.astype(np.float64),
    "repetition": _repetitions,
}
