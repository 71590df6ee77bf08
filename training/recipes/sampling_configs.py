"""The flags of ``recipes.sample`` and ``recipes.evaluate_policy``. Standard library only."""

from dataclasses import dataclass

from training.recipes.common_configs import BaseConfig
from training.recipes.settings import setting

MOST_MODELS = 4
# Draws are numbered by prompt and sample: asking for more samples leaves the earlier ones as they were.
MOST_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class AnsweringConfig(BaseConfig):
    """The flags of what has models answer prompts and trains none."""

    resume: bool = setting(False, help="go on behind the last finished step in --output", affects_results=False)
    max_prompts: int | None = setting(
        None, help="prompts answered, drawn by the seed (unset: all)", unit="prompts", minimum=1, maximum=100_000
    )
    batch_size: int = setting(
        16, help="prompts per step; behind each step its responses are on disk", unit="prompts", minimum=1
    )
    temperature: float = setting(1.0, help="of sampling; nothing else shapes what is sampled", above=0)
    max_prompt_length: int | None = setting(
        None,
        help="longest prompt, longer ones are dropped and counted (unset: what the response leaves of --max-length)",
        unit="tokens",
        minimum=1,
    )
    max_response_length: int = setting(256, help="longest response, its thinking included", unit="tokens", minimum=1)

    @property
    def prompt_limit(self) -> int:
        """The longest prompt, in tokens."""
        return self.max_prompt_length or self.max_length - self.max_response_length

    def conflicts(self) -> dict[str, str]:
        """What cannot be meant together."""
        if self.prompt_limit < 1 or self.prompt_limit + self.max_response_length > self.max_length:
            needed = max(1, self.prompt_limit) + self.max_response_length
            return {"max_length": f"must be at least {needed}: a prompt and --max-response-length together"}
        return {}


@dataclass(frozen=True, kw_only=True)
class SampleConfig(AnsweringConfig):
    """Responses of one to four models to prompts, for people to compare."""

    model: tuple[str, ...] = setting(
        help="model folder or hub id, one to four times; each answers every prompt, one model after the other"
    )
    data: str = setting(
        help="JSONL file in the native format: prompt lines, or any snapshot, whose distinct prompts are answered",
        affects_results=False,
    )
    split: str = setting("all", help="which prompts are answered", choices=("all", "train", "validation", "test"))
    samples_per_prompt: int = setting(
        1, help="responses of each model to each prompt", unit="responses", minimum=1, maximum=MOST_SAMPLES
    )
    reward_model: str | None = setting(
        None, help="a reward model that scores each response: a folder or one of our runs"
    )
    stream: bool = setting(
        False, help="write every token to tokens.jsonl as it is sampled; one process alone", affects_results=False
    )

    def conflicts(self) -> dict[str, str]:
        """What cannot be meant together."""
        if not 1 <= len(self.model) <= MOST_MODELS:
            return {"model": f"must be given 1 to {MOST_MODELS} times"}
        return super().conflicts()


@dataclass(frozen=True, kw_only=True)
class EvaluatePolicyConfig(AnsweringConfig):
    """A policy beside another on held-out prompts, by a reward model that judges both."""

    model: str = setting(help="the policy: a model folder or hub id")
    baseline: str = setting(help="what it is compared with: a model folder or hub id")
    judge: str = setting(help="the reward model that judges both: a folder or one of our runs")
    reward_model: str | None = setting(
        None,
        help="another reward model, such as the one that was trained towards: its score stands beside, and it chooses "
        "among four responses of the baseline (unset: the judge chooses)",
    )
    split: str = setting("validation", help="which prompts are answered", choices=("validation", "test"))
    max_prompts: int | None = setting(
        128, help="prompts answered, drawn by the seed (unset: all)", unit="prompts", minimum=1, maximum=100_000
    )
