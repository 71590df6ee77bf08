"""A reward model, or several, as a source of rewards.

A reward model with the policy's own tokenizer and template reads the very ids that were sampled, all samples of a
prompt packed behind it. Any other gets the text, put into its own template: decoding and encoding again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

import torch

from training.core.errors import UsageError
from training.core.halving import MicroBatchBudget
from training.core.modeling import OpaqueClassifier
from training.core.packing import MicroBatch, TokenisedExample, collate, packing_refusal, plan_micro_batches
from training.core.records import Message, Response
from training.core.reward_sources.episodes import Episode, PromptLine, ScoreFailure
from training.core.scorer import Scorer
from training.core.scoring import packing_error
from training.core.tokens import NEW_PAD_TOKEN, ChatEncoder, EncodedPrompt

PACKING_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Reading:
    """What reward models need to know of the policy.

    Attributes:
        encoder: the policy's.
        budget: tokens forwarded at once, halved in all processes together where memory does not suffice.
        autocast_dtype: the arithmetic of reward models that are loaded here.
        show_thinking: whether they see the thinking, too.
        longest_prompt, max_response_length: in tokens of the policy.
    """

    encoder: ChatEncoder
    budget: MicroBatchBudget
    autocast_dtype: torch.dtype
    show_thinking: bool
    longest_prompt: int
    max_response_length: int


class ModelReward:
    """The mean of the scores of one or more reward models, less ``spread`` times their standard deviation.

    Every model's score is what it says less its own ``mean``, so that 0 is an ordinary response of its training data.
    With ``spread`` a response on which the models disagree counts less than one they are sure of (Coste et al. 2023,
    arXiv 2310.02743, there with the variance); the standard deviation is the population's.
    """

    def __init__(self, name: str, weight: float, judges: Sequence["Judge"], *, spread: float = 0.0) -> None:
        self.name, self.weight, self.judges, self.spread = name, weight, list(judges), spread

    def check(self, line: PromptLine) -> None:
        """Refuse a prompt that a model's template cannot hold."""
        for judge in self.judges:
            judge.check(line)

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """The combined score of each episode; the same however they are packed, rounding aside."""
        columns: list[list[float]] = []
        faults: list[ScoreFailure] = []
        for judge in self.judges:
            try:
                columns.append(judge.score(episodes))
            except ScoreFailure as failure:
                faults.append(failure)  # the others are still asked: in other processes they may be waiting
        if faults:
            raise faults[0]
        if len(columns) == 1:
            return columns[0]
        return [fmean(row) - self.spread * pstdev(row) for row in zip(*columns, strict=True)]


class Judge:
    """One reward model that scores episodes.

    Raises:
        UsageError: it can be told from the lengths that some response would be longer than the model can take.
    """

    def __init__(self, scorer: Scorer, reading: Reading, *, say: Callable[[str], None]) -> None:
        self._scorer, self._reading = scorer, reading
        self.same_tokenizer = same_tokenizer(reading.encoder, scorer.encoder)
        config = scorer.model.whole.config.get_text_config()
        self.limit: int | None = getattr(config, "max_position_embeddings", None)
        longest = reading.longest_prompt + reading.max_response_length + len(scorer.encoder.ending_ids)
        if self.same_tokenizer and self.limit is not None and longest > self.limit:
            raise UsageError(
                f"a prompt of {reading.longest_prompt} tokens and a response of {reading.max_response_length} are, with"
                f" the template's ending, {longest} tokens, and the reward model takes {self.limit}"
            )
        self._rows = scorer.model.whole.get_input_embeddings().weight.shape[0]
        self._roles: set[tuple[str, ...]] = set()
        self.packed, reason = self._choose_rows(longest)
        ids = "the sampled ids" if self.same_tokenizer else "the text, with its own tokenizer and template"
        say(f"the reward model reads {ids}; rows: {reason}")

    @property
    def whole(self) -> Any:
        """Its transformers model."""
        return self._scorer.model.whole

    def check(self, line: PromptLine) -> None:
        """Refuse a prompt whose roles the template refuses; each order of roles is tried once."""
        roles = tuple(message.role for message in line.prompt)
        if not self.same_tokenizer and roles not in self._roles:
            encoded = self._scorer.encoder.encode_prompt(line.prompt)
            self._scorer.encoder.encode_response(line.prompt, encoded, Response("an answer"))
            self._roles.add(roles)

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """What the model says of each episode, less its mean; all processes call this together."""
        fault, examples, places = None, list[TokenisedExample](), list[tuple[int, int]]()
        try:
            examples, places = self._examples(episodes)
        except ScoreFailure as failure:
            fault = failure  # told after the meeting, at which the other processes count on this one
        found = self._reading.budget.run(lambda tokens: self._forward(examples, tokens), drop=lambda: None)
        if fault is not None:
            raise fault
        return [found[number][place] - self._scorer.mean for number, place in places]

    def _examples(self, episodes: Sequence[Episode]) -> tuple[list[TokenisedExample], list[tuple[int, int]]]:
        """The episodes' ids, one example a prompt, and where each episode went: (example, response)."""
        prompts: dict[tuple[int, ...], int] = {}
        responses: list[list[tuple[int, ...]]] = []
        places = []
        rendered: dict[tuple[Message, ...], EncodedPrompt] = {}
        for place, episode in enumerate(episodes):
            try:
                prompt, response = self._ids(episode, rendered)
            except UsageError as error:
                raise ScoreFailure(str(error), place) from error
            self._refuse_unreadable(prompt + response, place)
            if not response:
                # The score at the prompt's last token, as of a response of that one token.
                prompt, response = prompt[:-1], prompt[-1:]
            number = prompts.setdefault(prompt, len(prompts))
            if number == len(responses):
                responses.append([])
            places.append((number, len(responses[number])))
            responses[number].append(response)
        examples = [TokenisedExample(prompt, tuple(responses[number])) for prompt, number in prompts.items()]
        return examples, places

    def _ids(
        self, episode: Episode, rendered: dict[tuple[Message, ...], EncodedPrompt]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the model reads of an episode: the prompt's ids and the response's.

        The template's ending stands behind a response that ended, or that has nothing to show but its thinking, which
        stays hidden: an empty answer.
        """
        encoder = self._scorer.encoder
        hidden = episode.thinking is not None and not self._reading.show_thinking
        if self.same_tokenizer and not hidden:
            return episode.prompt_ids, episode.spoken_ids + (encoder.ending_ids if episode.ended else ())
        if episode.prompt not in rendered:
            rendered[episode.prompt] = encoder.encode_prompt(episode.prompt)
        encoded = rendered[episode.prompt]
        response = encoder.encode_response(episode.prompt, encoded, Response(episode.text, episode.thinking))
        shown = episode.text or (episode.thinking if self._reading.show_thinking else "")
        if not episode.ended and shown:
            response = response[: len(response) - len(encoder.ending_ids)]
        return episode.prompt_ids if self.same_tokenizer else encoded.ids, response

    def _refuse_unreadable(self, ids: tuple[int, ...], place: int) -> None:
        if self.limit is not None and len(ids) > self.limit:
            raise ScoreFailure(f"{len(ids)} tokens, and the reward model takes {self.limit}", place)
        if max(ids) >= self._rows:
            raise ScoreFailure(f"id {max(ids)} was sampled, and the reward model knows {self._rows} ids", place)

    @torch.no_grad()
    def _forward(self, examples: Sequence[TokenisedExample], tokens: int) -> list[list[float]]:
        """Scores (prompts, responses of each), with at most ``tokens`` forwarded at once where rows allow it."""
        found: list[list[float]] = [[] for _ in examples]
        model = self._scorer.model
        for batch in plan_micro_batches(examples, range(len(examples)), packed=self.packed, budget=tokens):
            # Rows of one prompt that do not fit together go one by one.
            apart = batch.tokens > tokens
            parts = [MicroBatch(batch.examples, (row,)) for row in batch.rows] if apart else [batch]
            for part in parts:
                rows = collate(examples, part, packed=self.packed, pad_id=self._scorer.pad_id, device=model.device)
                scores = iter(model.score(rows).tolist())
                for row in part.rows:
                    found[row.example] += [next(scores) for _ in row.responses]
        return found

    def _choose_rows(self, longest: int) -> tuple[bool, str]:
        """Whether responses are packed behind their prompt: the config has to allow it, then a trial to score alike."""
        if isinstance(self._scorer.model, OpaqueClassifier):
            return False, "one response a row, as the model pools by itself"
        if refusal := packing_refusal(self._scorer.model.whole.config.get_text_config(), longest=longest):
            return False, f"one response a row: {refusal}"
        gap = packing_error(self._scorer.model, self._trial(), pad_id=self._scorer.pad_id)
        if not gap <= PACKING_TOLERANCE:
            return False, f"one response a row: packed and separate scores differ by {gap:.1e}"
        return True, f"prompts shared by their responses (packed and separate scores differ by {gap:.1e})"

    def _trial(self) -> TokenisedExample:
        """A prompt with two responses of some length, to try packing on."""
        encoder = self._scorer.encoder
        prompt = (Message("user", "What is the capital of France, and what is it known for? " * 4),)
        encoded = encoder.encode_prompt(prompt)
        answers = ("Paris, for the Eiffel Tower and the Louvre. " * 4, "It is Lyon.")
        return TokenisedExample(
            encoded.ids, tuple(encoder.encode_response(prompt, encoded, Response(answer)) for answer in answers)
        )


def models_of(sources: Sequence[object]) -> list[Any]:
    """The transformers models that some sources of rewards hold in memory."""
    return [judge.whole for source in sources if isinstance(source, ModelReward) for judge in source.judges]


def same_tokenizer(ours: ChatEncoder, theirs: ChatEncoder) -> bool:
    """Whether two tokenizers give the same ids for the same conversation: backend and chat template are equal.

    How they pad and truncate, and a pad token that we added ourselves, is of no matter.
    """
    backends = [_backend(encoder.tokenizer) for encoder in (ours, theirs)]
    return (
        backends[0] is not None
        and backends[0] == backends[1]
        and ours.tokenizer.chat_template == theirs.tokenizer.chat_template
    )


def _backend(tokenizer: Any) -> dict[str, Any] | None:
    """All that a fast tokenizer encodes by; None for one that does not say."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    value: dict[str, Any] = json.loads(backend.to_str())
    value.pop("padding", None)
    value.pop("truncation", None)
    value["added_tokens"] = [each for each in value.get("added_tokens", []) if each["content"] != NEW_PAD_TOKEN]
    return value
