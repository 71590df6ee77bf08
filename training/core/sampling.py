"""Sampling responses: tokens, and the log-probs of the sampler itself, the same however the prompts are batched.

Token t of sample n is drawn with the t-th uniform of a generator that only (seed, purpose, step, n) decide: it is where
the cumulated probabilities of softmax(logits / T) first exceed that uniform. So neither batches nor processes nor the
order of the prompts leave a trace, but for rounding. Nothing else touches the logits: no top-k, no penalty, nothing of
what a model's own generation config asks for, because the training forward does not score it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from training.core.decoding_cache import preallocated_cache
from training.core.errors import TrainingError
from training.core.forwarding import autocast
from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel
from training.core.randomness import generator_for
from training.core.sharding import even_out
from training.core.thinking import CLOSING, OPENING, is_opened

PROMPT_END_TOKENS = 16


@dataclass(frozen=True)
class Sample:
    """One sampled response.

    ``tokens``: up to the first stop token, inclusive; ``log_probs``: of each, in nats, under softmax(logits / T) as the
    sampler computed them; ``ended``: whether it stopped by itself, False if a length limit cut it off.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    ended: bool


@dataclass(frozen=True)
class SamplingSettings:
    """How responses are sampled.

    Attributes:
        temperature: T in softmax(logits / T).
        max_length: tokens of a response at most, the stop token included.
        stop_ids: what ends a response.
        pad_id: fills up rows; never seen.
        seed: of the run.
        max_thinking: a response that begins with thinking which is not closed within so many tokens is cut off there.
        greedy: the likeliest token instead of a drawn one; log-probs stay those at T.
    """

    temperature: float
    max_length: int
    stop_ids: frozenset[int]
    pad_id: int
    seed: int
    max_thinking: int | None = None
    greedy: bool = False


class Sampler(Protocol):
    """What draws responses of the policy, by whatever engine."""

    def sample(
        self, prompts: Sequence[tuple[int, ...]], numbers: Sequence[int], *, purpose: str, step: int
    ) -> list[Sample] | None:
        """One response to each of this process's prompts, in order; None if a stop was asked for in any process.

        Args:
            prompts: token ids, generation prompt included.
            numbers: the global index of each sample, from which with ``purpose`` and ``step`` its draws derive.
        """
        ...


@dataclass
class GenerateSampler:
    """Samples by ``generate`` of transformers: left padding, a cache, prompts of similar length together.

    Attributes:
        model: the policy; within ``model.reference()`` its reference is sampled.
        budget: rows × (longest prompt + ``max_length``) forwarded at once; halved where memory does not suffice. With a
            sharded model all processes make the same number of batches and of decoding steps.
        autocast_dtype: the arithmetic of sampling; the model's own, if None.
        decode: the text of tokens; needed for ``max_thinking`` alone.
        interrupted: whether to stop; asked between batches and decoding steps.
        heard: told at every decoding step which token of a response this is (from 0), the numbers of the samples, and
            their tokens. What comes behind the stop token of a sample is no part of it. Where memory runs out, samples
            begin anew, with the same tokens.
    """

    model: LanguageModel
    settings: SamplingSettings
    budget: MicroBatchBudget
    autocast_dtype: torch.dtype | None = None
    decode: Callable[[Sequence[int]], str] | None = None
    interrupted: Callable[[], bool] = lambda: False
    heard: Callable[[int, Sequence[int], Sequence[int]], None] | None = None

    def sample(
        self, prompts: Sequence[tuple[int, ...]], numbers: Sequence[int], *, purpose: str, step: int
    ) -> list[Sample] | None:
        """See ``Sampler.sample``; all processes call it together.

        Raises:
            TrainingError: logits are not finite, or out of memory however few prompts go at once.
            ValueError: ``max_thinking`` without ``decode``.
        """
        if self.settings.max_thinking is not None and self.decode is None:
            raise ValueError("max_thinking needs decode")
        found: dict[int, Sample] = {}
        stopped = self.budget.run(
            lambda tokens: self._sample_share(prompts, numbers, (purpose, step), tokens, found), drop=lambda: None
        )
        if self.budget.world.any(stopped, device=self.model.device):
            return None
        return [found[place] for place in range(len(prompts))]

    def _sample_share(
        self,
        prompts: Sequence[tuple[int, ...]],
        numbers: Sequence[int],
        occasion: tuple[str, int],
        tokens: int,
        found: dict[int, Sample],
    ) -> bool:
        """Sample what is not in ``found`` yet (an attempt may have run out of memory); whether it was interrupted."""
        missing = [place for place in range(len(prompts)) if place not in found]
        batches = plan_sampling([len(prompt) for prompt in prompts], missing, self.settings.max_length, budget=tokens)
        for places in self._evened_out(batches):
            if self._asked_to_stop():
                return True
            rows = [prompts[place] for place in places]
            mine = [numbers[place] for place in places]
            uniforms = self._uniforms(mine, *occasion)
            # A process without prompts of its own forwards one pad, to meet the others.
            samples = self._generate(rows or [(self.settings.pad_id,)], uniforms, mine)
            if samples is None:
                if not self.budget.sharded:
                    return True
                continue  # the others find out at the next meeting
            found.update(zip(places, samples, strict=False))
        return len(found) < len(prompts)

    def _evened_out(self, batches: list[list[int]]) -> list[list[int]]:
        if not self.budget.sharded:
            return batches
        return [batch for batch, _ in even_out(batches, [], world=self.budget.world, device=self.model.device)]

    def _asked_to_stop(self) -> bool:
        if self.budget.sharded:
            return self.budget.world.any(self.interrupted(), device=self.model.device)
        return self.interrupted()

    def _uniforms(self, numbers: Sequence[int], purpose: str, step: int) -> Tensor:
        """In [0, 1), float64 (N, max_length); one row even if there are no numbers."""
        draws = [
            torch.rand(
                self.settings.max_length,
                dtype=torch.float64,
                generator=generator_for(self.settings.seed, purpose, step, number),
            )
            for number in numbers
        ]
        return torch.stack(draws or [torch.zeros(self.settings.max_length, dtype=torch.float64)])

    def _generate(
        self, prompts: Sequence[tuple[int, ...]], uniforms: Tensor, numbers: Sequence[int]
    ) -> list[Sample] | None:
        """One batch; None if it was interrupted."""
        settings, device = self.settings, self.model.device
        ids, mask = pad_left(prompts, pad_id=settings.pad_id)
        stop = StopEarly(self.interrupted, prompts, settings.max_thinking, self.decode)
        draw = Draw(
            uniforms.to(device), temperature=settings.temperature, greedy=settings.greedy,
            told=self._teller(numbers, stop),
        )  # fmt: skip
        arithmetic = self.model.autocast_dtype if self.autocast_dtype is None else self.autocast_dtype
        config = generation_config(settings)
        ids, mask = ids.to(device), mask.to(device)
        with as_sampler(self.model, config), autocast(device, arithmetic):
            # Sharded processes have to make equally many forwards, whatever prompts they have.
            cache = None if self.budget.sharded else self._cache(ids.shape[1])
            if cache is not None:
                share_prompts(self.model.whole, ids, mask, cache)
            self.model.whole.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=config,
                logits_processor=LogitsProcessorList([draw]),
                stopping_criteria=StoppingCriteriaList([stop]),
                synced_gpus=self.budget.sharded,
            )
        if stop.interrupted:
            return None
        return read_samples(draw, stop.cut, settings)

    def _cache(self, prompt: int) -> DynamicCache | None:
        return preallocated_cache(self.model.whole, room=prompt + self.settings.max_length)

    def _teller(self, numbers: Sequence[int], stop: "StopEarly") -> Callable[[int, Tensor], None] | None:
        """Tells ``heard`` of the samples of one batch that were not cut off."""
        if (heard := self.heard) is None:
            return None

        def tell(position: int, tokens: Tensor) -> None:
            # One row more than numbers: the pad of a process without prompts.
            told = [one for one in zip(numbers, tokens.tolist(), stop.cut, strict=False) if not one[2]]
            heard(position, [number for number, _, _ in told], [token for _, token, _ in told])

        return tell


def share_prompts(whole: Any, ids: Tensor, mask: Tensor, cache: DynamicCache) -> None:
    """Fill an empty cache for ``generate`` with every distinct prompt computed once; nothing where all are distinct.

    The last token is left to ``generate``, which needs its logits. Of a group of K samples to one prompt that saves
    K − 1 passes over it.

    Shapes: ``ids`` and ``mask`` (N, T), padded left.
    """
    distinct, place = torch.unique(torch.cat([ids, mask], dim=1), dim=0, return_inverse=True)
    if len(distinct) == len(ids) or ids.shape[1] < 2:
        return
    some_ids, some_mask = (part[:, :-1] for part in distinct.split(ids.shape[1], dim=1))
    positions = (some_mask.cumsum(-1) - 1).clamp(min=0)
    whole.base_model(
        input_ids=some_ids, attention_mask=some_mask, position_ids=positions, past_key_values=cache, use_cache=True
    )
    cache.batch_select_indices(place)


def plan_sampling(lengths: Sequence[int], places: Sequence[int], max_length: int, *, budget: int) -> list[list[int]]:
    """Places of prompts grouped by length, the longest first, such that rows × (longest + ``max_length``) ≤ budget.

    A prompt over the budget goes alone.
    """
    batches: list[list[int]] = []
    for place in sorted(places, key=lambda place: (-lengths[place], place)):
        if batches and (len(batches[-1]) + 1) * (lengths[batches[-1][0]] + max_length) <= budget:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def pad_left(prompts: Sequence[tuple[int, ...]], *, pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask (N, longest), so that all rows go on from the same column."""
    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def generation_config(settings: SamplingSettings) -> GenerationConfig:
    """All that ``generate`` is told: when to end. What it chooses among is a single token (see ``Draw``)."""
    return GenerationConfig(
        max_new_tokens=settings.max_length,
        do_sample=False,
        use_cache=True,
        eos_token_id=sorted(settings.stop_ids) or None,
        pad_token_id=settings.pad_id,
    )


@contextmanager
def as_sampler(model: LanguageModel, config: GenerationConfig) -> Iterator[None]:
    """Inside, ``generate`` goes through the model's adapter, without gradients, and knows no other config.

    transformers fill up what a given config leaves open from the model's own; and a layer that checkpoints its
    activations, as it does in training mode, keeps no cache.
    """
    whole = model.whole
    before, training = whole.generation_config, whole.training
    whole.generation_config = config
    whole.eval()
    try:
        with model.forwarding(), torch.no_grad():
            yield
    finally:
        whole.generation_config = before
        whole.train(training)


class Draw(LogitsProcessor):  # type: ignore[misc]  # untyped there
    """Draws the next token of each row, leaves ``generate`` no other choice, and keeps tokens and log-probs.

    Args:
        uniforms: (N, T) in [0, 1).
        told: called at each step with its number, from 0, and its tokens (N,).
    """

    def __init__(
        self,
        uniforms: Tensor,
        *,
        temperature: float,
        greedy: bool,
        told: Callable[[int, Tensor], None] | None = None,
    ) -> None:
        self._uniforms, self._temperature, self._greedy, self._told = uniforms, temperature, greedy, told
        self.tokens: list[Tensor] = []
        self.log_probs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits (N, V) of the next token → 0 for the token drawn and −inf for the others."""
        log_p = torch.log_softmax(scores.float() / self._temperature, dim=-1)
        uniform = self._uniforms[:, len(self.tokens)]
        tokens = scores.argmax(-1) if self._greedy else inverse_cdf(log_p, uniform)
        self.tokens.append(tokens)
        self.log_probs.append(log_p.gather(-1, tokens[:, None]).squeeze(-1))
        if self._told is not None:
            self._told(len(self.tokens) - 1, tokens)
        return torch.full_like(scores, float("-inf")).scatter_(-1, tokens[:, None], 0.0)


def inverse_cdf(log_p: Tensor, uniform: Tensor) -> Tensor:
    """The first token at which the cumulated probability exceeds the uniform: (N, V), (N,) → (N,).

    A token of probability 0 is never drawn: the sum does not grow at it.
    """
    # In float64: over 50,000 tokens a float32 sum would lose the unlikely ones.
    cumulated = log_p.exp().cumsum(-1, dtype=torch.float64)
    wanted = uniform[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, wanted, right=True).squeeze(-1).clamp_(max=log_p.shape[-1] - 1)


class StopEarly(StoppingCriteria):  # type: ignore[misc]
    """Ends rows whose thinking goes on for too long, and all rows when asked to stop.

    Whether thinking is open is looked at once, when a response has ``max_thinking`` tokens.
    """

    def __init__(
        self,
        interrupted: Callable[[], bool],
        prompts: Sequence[tuple[int, ...]],
        max_thinking: int | None,
        decode: Callable[[Sequence[int]], str] | None,
    ) -> None:
        self._ask, self._prompts, self._limit, self._decode = interrupted, prompts, max_thinking, decode
        self._drawn = 0
        self.interrupted = False
        self.cut = [False] * len(prompts)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """(N,) bool: which rows end here."""
        self._drawn += 1
        self.interrupted = self.interrupted or self._ask()
        if self._drawn == self._limit:
            responses = input_ids[:, -self._drawn :].tolist()
            self.cut = [self._is_open(*each) for each in zip(self._prompts, responses, strict=True)]
        ends = [self.interrupted or cut for cut in self.cut]
        return torch.tensor(ends, device=input_ids.device)

    def _is_open(self, prompt: tuple[int, ...], response: list[int]) -> bool:
        assert self._decode is not None
        text = self._decode(response)
        opened = is_opened(self._decode(prompt[-PROMPT_END_TOKENS:]))
        return (opened or text.lstrip().startswith(OPENING)) and CLOSING not in text


def read_samples(draw: Draw, cut: Sequence[bool], settings: SamplingSettings) -> list[Sample]:
    """What was drawn, row by row, up to where each ends.

    Raises:
        TrainingError: a log-prob is not finite.
    """
    tokens = torch.stack(draw.tokens, dim=1).tolist()
    log_probs = torch.stack(draw.log_probs, dim=1)
    if not bool(log_probs.isfinite().all()):
        raise TrainingError("the model gives logits that are not finite")
    samples = []
    for row, figures, was_cut in zip(tokens, log_probs.tolist(), cut, strict=True):
        limit = settings.max_thinking if was_cut else settings.max_length
        end = next((place for place, token in enumerate(row[:limit]) if token in settings.stop_ids), None)
        length = limit if end is None else end + 1
        samples.append(Sample(tuple(row[:length]), tuple(figures[:length]), ended=end is not None))
    return samples
