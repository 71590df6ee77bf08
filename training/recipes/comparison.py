"""Two policies' answers to the same prompts, side by side: what PPO's end and ``recipes.evaluate_policy`` say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.core.blind_pairs import BlindPair, write_blind_pairs
from training.core.conversations import PromptRecord
from training.core.policy_statistics import Answers, compare_answers, describe_answers
from training.recipes.launch import Session

# The policy at the start is asked so often more, to see what choosing by score is worth without training.
BEST_OF = 4


@dataclass(frozen=True)
class Side:
    """What one policy answered: the figures of its answers, and one text a prompt for people to compare."""

    figures: Answers
    texts: Sequence[str]


def compare_sides(
    session: Session[Any],
    records: Sequence[PromptRecord],
    *,
    split: str,
    before: Side,
    after: Side,
    candidates: Answers,
    makers: Mapping[str, str],
) -> dict[str, Any]:
    """``before``, ``after`` and what lies between them, for a report; writes the blind pairs.

    Args:
        records: the prompts, in the order of the answers.
        candidates: further answers of the policy before, to choose among.
        makers: what the key of the blind pairs tells of ``trained`` and ``start``.
    """
    written: dict[str, Any] = {}
    if session.world.is_main:
        pairs = [
            BlindPair(record.prompt, record.split, record.split_group, trained=new, start=old)
            for record, new, old in zip(records, after.texts, before.texts, strict=True)
        ]
        written = write_blind_pairs(session.folder, pairs, seed=session.config.seed, makers=dict(makers))
    groups = [record.split_group for record in records]
    said_alike = [new == old for new, old in zip(after.texts, before.texts, strict=True)]
    after = replace(after, figures=settle_equal(after.figures, before.figures, among=said_alike))
    candidates = settle_equal(candidates, before.figures, among=[True] * len(records))
    return {
        "split": split,
        "before": describe_answers(before.figures),
        "after": describe_answers(after.figures),
        **compare_answers(before.figures, after.figures, groups, seed=session.config.seed, candidates=candidates),
        "blind_pairs": session.world.from_main(written),
    }


def settle_equal(found: Answers, before: Answers, *, among: Sequence[bool]) -> Answers:
    """The answers with the scores of ``before`` wherever they are the same response to the same prompt.

    A response is scored together with others, and rounding depends on these: it must not decide who wins.

    Args:
        among: whether the prompt's responses may be the same: equal ids of two tokenizers are not.
    """
    score, judge = found.score.copy(), None if found.judge is None else found.judge.copy()
    for prompt, possible in enumerate(among):
        places = {
            (tuple(tokens), bool(before.ended[prompt, place])): place
            for place, tokens in enumerate(before.tokens[prompt] if possible else ())
        }
        for place, tokens in enumerate(found.tokens[prompt]):
            same = places.get((tuple(tokens), bool(found.ended[prompt, place])))
            if same is not None:
                score[prompt, place] = before.score[prompt, same]
                if judge is not None and before.judge is not None:
                    judge[prompt, place] = before.judge[prompt, same]
    return replace(found, score=score, judge=judge)
