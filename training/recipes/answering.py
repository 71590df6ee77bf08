"""Prompts answered and their responses scored by all processes together; every one of them then holds all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.core.packing import TokenisedExample
from training.core.reward_sources.episodes import Episode, RewardSource, Scores, make_episode, score_all
from training.core.sampling import Sample, Sampler
from training.recipes.launch import Session
from training.recipes.prompts import Prompts


@dataclass(frozen=True)
class Sampled:
    """Prompts with the responses sampled to them: N = prompts × responses to each, prompt by prompt."""

    examples: tuple[TokenisedExample, ...]
    episodes: tuple[Episode, ...]
    samples: tuple[Sample, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens of each response, (N,)."""
        return tuple(len(sample.tokens) for sample in self.samples)


def sample_together(
    session: Session[Any],
    sampler: Sampler,
    prompts: Prompts,
    numbers: Sequence[int],
    *,
    purpose: str,
    step: int,
    each: int,
    draws: Sequence[int] | None = None,
) -> Sampled | None:
    """``each`` responses to each of some prompts, in every process; None if any was asked to stop.

    Args:
        purpose, step: what the draws derive from, beside the seed and the number of the response.
        draws: the number of each response; its place among these, if not given.
    """
    world, ids = session.world, [prompts.ids(number) for number in numbers]
    draws = range(len(ids) * each) if draws is None else draws
    places = places_of(world.share(list(range(len(ids)))), each)
    mine = sampler.sample(
        [ids[place // each] for place in places], [draws[place] for place in places], purpose=purpose, step=step
    )
    shares = world.gather(None if mine is None else dict(zip(places, mine, strict=True)))
    if any(share is None for share in shares):
        return None
    together = {place: sample for share in shares for place, sample in share.items()}
    samples = tuple(together[place] for place in range(len(ids) * each))
    examples = tuple(
        TokenisedExample(prompt, tuple(sample.tokens for sample in samples[place * each : (place + 1) * each]))
        for place, prompt in enumerate(ids)
    )
    episodes = tuple(
        make_episode(prompts.tokenizer, prompts.record(numbers[place // each]), ids[place // each], sample.tokens,
                     ended=sample.ended, thinking_opened=prompts.thinking_opened)
        for place, sample in enumerate(samples)
    )  # fmt: skip
    return Sampled(examples, episodes, samples)


def score_together(session: Session[Any], sources: Sequence[RewardSource], sampled: Sampled) -> Scores:
    """The rewards of all responses, in every process; each scores the responses to its share of the prompts.

    Raises:
        TrainingError: in all processes if in any.
    """
    world, each = session.world, len(sampled.episodes) // len(sampled.examples)
    mine = places_of(world.share(list(range(len(sampled.examples)))), each)
    found = world.together(lambda: score_all(sources, [sampled.episodes[place] for place in mine]))
    return _joined(world.gather((mine, found)))


def places_of(prompts: Sequence[int], each: int) -> list[int]:
    """Which responses answer some prompts, ``each`` to one."""
    return [prompt * each + copy for prompt in prompts for copy in range(each)]


def _joined(shares: Sequence[tuple[Sequence[int], Scores]]) -> Scores:
    """All processes' scores, in the order of the responses."""

    def ordered(columns: Sequence[Sequence[float]]) -> list[float]:
        pairs = [
            pair
            for (places, _), column in zip(shares, columns, strict=True)
            for pair in zip(places, column, strict=True)
        ]
        return [score for _, score in sorted(pairs)]

    names = shares[0][1].by_name
    return Scores(
        ordered([scores.total for _, scores in shares]),
        {name: ordered([scores.by_name[name] for _, scores in shares]) for name in names},
    )
