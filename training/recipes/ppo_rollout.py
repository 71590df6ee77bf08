"""A rollout: sample responses to a batch of prompts, score them, and note what every model makes of their tokens.

All processes hold all of it: what is computed from it (advantages, whitening, groups) does not depend on how many
processes there are.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.errors import StoppedBeforeStep
from training.core.language import LanguageModel
from training.core.log_probs import token_figures
from training.core.masked import to_rows
from training.core.packing import PackedRows
from training.core.reward_sources.episodes import Scores
from training.core.token_places import TokenPlaces
from training.recipes.answering import Sampled, sample_together, score_together
from training.recipes.configs import PpoConfig
from training.recipes.launch import Session
from training.recipes.ppo_models import Models
from training.recipes.prompts import Prompts

ROLLOUT = "rollout"


@dataclass(frozen=True)
class Rollout:
    """What is learned from, before anything is learned. Flat tensors (M,) hold response tokens, response by response;
    all on CPU in float32.

    Attributes:
        sampled: the responses.
        scores: of the reward sources, (N,).
        log_probs: of the policy by the training forward, at the sampling temperature, (M,).
        sampler_log_probs: of the policy as the sampler had them, (M,).
        reference_log_probs: of the policy before training, (M,).
        entropy: of the policy at each token, (M,), nats.
        values: what the value model expects before each token, (M,), or None.
        seconds: by phase.
    """

    sampled: Sampled
    scores: Scores
    log_probs: Tensor
    sampler_log_probs: Tensor
    reference_log_probs: Tensor
    entropy: Tensor
    values: Tensor | None
    seconds: dict[str, float]

    @property
    def mask(self) -> Tensor:
        """(N, T), true at the tokens of each response."""
        return self.rows(self.log_probs)[1]

    @property
    def groups(self) -> Tensor:
        """(N,), which prompt each response answers."""
        sizes = [len(example.responses) for example in self.sampled.examples]
        return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))

    @property
    def ended(self) -> Tensor:
        """(N,), whether each response came to its own end."""
        return torch.tensor([sample.ended for sample in self.sampled.samples])

    def rows(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Flat tokens as padded rows (N, T) and their mask."""
        return to_rows(flat, self.sampled.counts)


def make_rollout(
    session: Session[PpoConfig], models: Models, prompts: Prompts, numbers: Sequence[int], step: int
) -> Rollout:
    """Sample responses to some prompts and look at them with every model.

    Raises:
        StoppedBeforeStep: asked to stop; nothing has been learned from this rollout.
        TrainingError: a reward that cannot be had.
    """
    clock = _Clock()
    sampled = sample_responses(
        session, models, prompts, numbers, purpose=ROLLOUT, step=step, each=session.config.samples_per_prompt
    )
    if sampled is None:
        raise StoppedBeforeStep(f"{session.stop.reason or 'stopped with another process'}, the rollout dropped")
    clock.note("sample")
    scores = score_together(session, models.sources, sampled)
    clock.note("score")
    _stop_if_asked(session)
    log_probs, entropy = policy_figures(session, models.policy, models, sampled)
    reference = reference_log_probs(session, models, sampled)
    _stop_if_asked(session)
    values = None
    if models.value is not None:
        (values,) = models.rows.figures(sampled.examples, lambda rows, places: [models.values(rows, places)])
    clock.note("forward")
    sampler = torch.tensor([value for sample in sampled.samples for value in sample.log_probs], dtype=torch.float32)
    return Rollout(sampled, scores, log_probs, sampler, reference, entropy, values, clock.seconds)


def sample_responses(
    session: Session[PpoConfig],
    models: Models,
    prompts: Prompts,
    numbers: Sequence[int],
    *,
    purpose: str,
    step: int,
    each: int,
    reference: bool = False,
) -> Sampled | None:
    """``each`` responses to each of some prompts, in every process; None if any was asked to stop.

    Args:
        purpose, step: what the draws derive from, beside the seed and the place among these responses.
        reference: sample from the policy before training.
    """
    sampler = models.reference_sampler if reference else models.sampler
    return sample_together(session, sampler, prompts, numbers, purpose=purpose, step=step, each=each)


def policy_figures(
    session: Session[PpoConfig], policy: LanguageModel, models: Models, sampled: Sampled
) -> tuple[Tensor, Tensor]:
    """ln π of all response tokens, and the entropy there: (M,), (M,)."""
    temperature = session.config.temperature

    def of(rows: PackedRows, places: TokenPlaces) -> list[Tensor]:
        found = token_figures(policy, rows, places, temperature=temperature)
        return [found.log_probs, found.entropy]

    log_probs, entropy = models.rows.figures(sampled.examples, of)
    return log_probs, entropy


def reference_log_probs(session: Session[PpoConfig], models: Models, sampled: Sampled) -> Tensor:
    """ln π_ref of all response tokens, (M,)."""
    temperature, reference = session.config.temperature, models.reference

    def of(rows: PackedRows, places: TokenPlaces) -> list[Tensor]:
        return [token_figures(reference, rows, places, temperature=temperature, entropy=False).log_probs]

    return models.rows.figures(sampled.examples, of)[0]


def flat_places(sampled: Sampled, responses: Sequence[tuple[int, int]]) -> Tensor:
    """Where the tokens of some responses (example, place) stand among all flat tokens, in their order."""
    each = len(sampled.episodes) // len(sampled.examples)
    starts = [0]
    for count in sampled.counts:
        starts.append(starts[-1] + count)
    numbers = [example * each + place for example, place in responses]
    return torch.cat([torch.arange(starts[number], starts[number + 1]) for number in numbers])


def _stop_if_asked(session: Session[PpoConfig]) -> None:
    if session.world.any(session.stop.requested, device=session.device):
        raise StoppedBeforeStep(f"{session.stop.reason or 'stopped with another process'}, the rollout dropped")


class _Clock:
    """Seconds of the phases of a rollout, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def note(self, phase: str) -> None:
        """The phase that ends here."""
        now = time.monotonic()
        self.seconds[phase], self._since = now - self._since, now
