"""The human ceiling: how well one person's judgement tells another's, beside how well the model's scores do.

An accuracy of 70 % is poor where people agree on 95 % of the pairs, and as good as it gets where they agree on 70 %.
"""

from typing import Any

import numpy as np

from training.core.bootstrap import Ints, mean
from training.core.judgements import Judgements, Pairs, correctness

NO_TASKS = "no ranking by a person names its task and its annotator"
NO_OVERLAP = "no task was ranked by two people"
NO_PAIRS = "two people never placed the same two responses, or only as equals"


def human_ceiling(judgements: Judgements, pairs: Pairs) -> dict[str, Any]:
    """Agreement of two random people who ranked the same task, and of the model with a random one of the two.

    Of a task and two of its responses, draw two of the people who compared them: a referee who set one of the responses
    above the other, and a second person, who is judged as the model is in pair accuracy: 1 where the second person
    has them in the same order, 0 where in the opposite one, ½ where as equals. The model is judged against the same
    referees. Pairs that the referee ties are left out because they are no strict pairs and accuracy leaves them out
    too; counting two ties as agreement would set a ceiling that scores, which never tie, could not reach. So the
    figure is what a person in the model's place would get. A model may beat it: it can know what most people think.

    With w people for the first response, l for the second and t ties, n = w + l + t, the mean over all such draws is
    (w (w − 1) + l (l − 1) + ½ t (w + l)) / ((w + l) (n − 1)), and the model's w / (w + l) if it is for the first.
    Every task's pair weighs the same, however many people ranked it. Machines do not take part.

    With ``below``, who placed one of two responses put it above the other; who left both unranked said nothing of the
    two and is drawn neither as referee nor as second person.

    Args:
        pairs: all pairs of the judgements, tied ones too.

    Returns:
        ``two_annotators``, ``model``, ``length`` and ``difference`` (model − two annotators, paired) as statistics,
        ``pairs``, ``prompts``, ``tasks`` and ``reason``; without such pairs the first four are None and ``reason``
        says why.
    """
    nothing = dict.fromkeys(("two_annotators", "model", "length", "difference")) | dict.fromkeys(_COUNTS, 0)
    known = ~judgements.machine & (judgements.task >= 0) & (judgements.annotator >= 0)
    if not known.any():
        return nothing | {"reason": NO_TASKS}
    shared = _shared_rankings(judgements, known)
    if not len(shared):
        return nothing | {"reason": NO_OVERLAP}
    chosen = pairs.where(np.isin(pairs.ranking, shared))
    # One row per task and pair of responses, the response of the smaller number first.
    swapped = chosen.first > chosen.second
    key = np.stack(
        [
            judgements.task[chosen.ranking],
            np.where(swapped, chosen.second, chosen.first),
            np.where(swapped, chosen.first, chosen.second),
        ]
    )
    rows, row_of = np.unique(key, axis=1, return_inverse=True)
    row_of = row_of.reshape(-1)
    count = rows.shape[1]
    first_wins = np.bincount(row_of, weights=chosen.strict & ~swapped, minlength=count)
    second_wins = np.bincount(row_of, weights=chosen.strict & swapped, minlength=count)
    people = np.bincount(row_of, minlength=count)
    usable = (people > 1) & (first_wins + second_wins > 0)
    if not usable.any():
        return nothing | {"reason": NO_PAIRS}
    w, m, n = first_wins[usable], second_wins[usable], people[usable]
    task, first, second = rows[:, usable]
    strict = w + m
    between = (w * (w - 1) + m * (m - 1) + 0.5 * (n - strict) * strict) / (strict * (n - 1))
    share = w / strict

    def judged(values: Any) -> Any:
        right = correctness(values[first] - values[second])
        return right * share + (1 - right) * (1 - share)

    model = judged(judgements.score)
    prompt = judgements.prompt[first]
    group, groups = judgements.group_of_prompt[prompt], judgements.groups
    return {
        "two_annotators": mean(between, group, groups=groups),
        "model": mean(model, group, groups=groups),
        "length": mean(judged(judgements.length), group, groups=groups),
        "difference": mean(model - between, group, groups=groups),
        "pairs": int(usable.sum()),
        "prompts": len(np.unique(prompt)),
        "tasks": len(np.unique(task)),
        "reason": None,
    }


_COUNTS = ("pairs", "prompts", "tasks")


def _shared_rankings(judgements: Judgements, known: Any) -> Ints:
    """Numbers of the rankings of tasks that two people ranked; of one person's several in a task, the last."""
    numbers = np.flatnonzero(known)[::-1]
    task, annotator = judgements.task[numbers], judgements.annotator[numbers]
    _, last = np.unique(np.stack([task, annotator]), axis=1, return_index=True)
    numbers = numbers[last]
    _, which, people = np.unique(judgements.task[numbers], return_inverse=True, return_counts=True)
    found: Ints = np.sort(numbers[people[which] > 1])
    return found
