"""The flags of the recipes that train a policy: ``sft``, ``dpo`` and ``ppo``. Standard library only."""

from dataclasses import dataclass

from training.core.errors import UsageError
from training.core.reward_sources.grammar import parse_reward
from training.recipes.common_configs import CommonConfig
from training.recipes.settings import setting

GROUP_ESTIMATORS = ("rloo", "grpo", "dr-grpo")
# By which --kl-target moves the weight at most, were the rollout as long as the horizon.
LARGEST_KL_ERROR = 0.2


@dataclass(frozen=True, kw_only=True)
class SftConfig(CommonConfig):
    """A language model from good answers: demonstrations, rewrites and best-ranked responses."""

    batch_size: int = setting(8, help="documents per optimiser step, over all processes", unit="documents", minimum=1)
    sample_prompts: int = setting(
        4, help="validation prompts answered before and after, for samples.jsonl", unit="prompts", minimum=0
    )
    max_response_length: int = setting(128, help="longest of those answers", unit="tokens", minimum=1)


@dataclass(frozen=True, kw_only=True)
class DpoConfig(CommonConfig):
    """A policy straight from rankings, without a reward model: direct preference optimisation."""

    learning_rate: float = setting(1e-6, help="peak learning rate of the policy", above=0)
    loss: str = setting(
        "pairwise",
        help="model of a ranking: Bradley-Terry over its strict pairs, or Plackett-Luce over its choices, best first",
        choices=("pairwise", "plackett-luce"),
    )
    beta: float = setting(0.1, help="how strongly the policy is held near the model it started from", above=0)
    unranked: str = setting(
        "ignore",
        help="responses left unranked: take no part, or stand below everything placed",
        choices=("ignore", "below"),
    )


@dataclass(frozen=True, kw_only=True)
class PpoConfig(CommonConfig):
    """A policy by reinforcement learning: PPO with a learned value, or RLOO, GRPO and Dr. GRPO over groups."""

    # What is rewarded.
    reward_model: str | None = setting(
        None, help="reward model: a folder or one of our runs; short for --reward model:DIR"
    )
    reward: tuple[str, ...] = setting(
        (),
        help="what is rewarded, KIND[:ARG][*WEIGHT], may be given several times: model:DIR, ensemble:DIR, exact, "
        "numeric, regex:PATTERN, format, tests, python:module.function",
    )
    allow_code_execution: bool = setting(
        False, help="let --reward tests run the code that the policy writes; no boundary against hostile code"
    )
    normalise_reward: bool = setting(False, help="divide rewards by their running standard deviation")
    clip_reward: float | None = setting(None, help="bound rewards to this size, after --normalise-reward", above=0)
    missing_eos_penalty: float = setting(
        1.0, help="taken off the reward of a response that was cut off before its end", minimum=0
    )

    # How responses are sampled.
    batch_size: int = setting(32, help="prompts per rollout, over all processes", unit="prompts", minimum=1)
    samples_per_prompt: int = setting(1, help="responses sampled to each prompt", unit="responses", minimum=1)
    max_prompt_length: int | None = setting(
        None,
        help="longest prompt, longer ones are dropped and counted (unset: what the response leaves of --max-length)",
        unit="tokens",
        minimum=1,
    )
    max_response_length: int = setting(64, help="longest response, its thinking included", unit="tokens", minimum=1)
    max_thinking_length: int | None = setting(
        None, help="a response whose thinking is not closed by then is cut off (unset: no limit of its own)",
        unit="tokens", minimum=1,
    )  # fmt: skip
    temperature: float = setting(
        1.0, help="of sampling, and of every log-probability, entropy and KL that is computed", above=0
    )
    importance_cap: float = setting(
        2.0, help="upper bound of the weights that make up for a sampler that is not the trainer to the last digit",
        minimum=1,
    )  # fmt: skip

    # How the policy learns from them.
    learning_rate: float = setting(3e-6, help="peak learning rate of policy and value model", above=0)
    value_learning_rate: float | None = setting(
        None, help="peak learning rate of the value model (unset: that of the policy)", above=0
    )
    schedule: str = setting(
        "linear", help="course of the learning rates after the warm-up", choices=("cosine", "linear", "constant")
    )
    inner_epochs: int = setting(4, help="passes over each rollout", unit="passes", minimum=1)
    minibatches: int = setting(1, help="optimiser steps per inner epoch", unit="steps", minimum=1)
    advantage: str = setting(
        "gae",
        help="how much better a token was than expected: by a value model (gae) or the other responses to the prompt",
        choices=("gae", *GROUP_ESTIMATORS),
    )
    gamma: float = setting(1.0, help="discount from one token to the next, with --advantage gae", minimum=0, maximum=1)
    gae_lambda: float = setting(
        0.95, help="0 trusts the value model, 1 the reward alone, with --advantage gae", minimum=0, maximum=1
    )
    clip: float = setting(0.2, help="how far a token's probability ratio pays", above=0, maximum=1)
    value_clip: float = setting(0.2, help="how far a value may move from that of the rollout", above=0)
    value_coefficient: float = setting(0.1, help="weight of the value loss", minimum=0)
    value_model: str | None = setting(
        None, help="where the value model starts, with --advantage gae (unset: the reward model, else --model)"
    )
    value_warmup: int = setting(
        0, help="rollouts in which the value model learns alone, with --advantage gae", unit="steps", minimum=0
    )
    trunk: str = setting(
        "auto",
        help="one frozen base with adapters for policy, value and reward: where it is possible (auto), or never",
        choices=("auto", "separate"),
    )
    entropy_coefficient: float = setting(0.0, help="weight of the entropy bonus", minimum=0)
    inner_kl_limit: float | None = setting(
        None, help="end the inner epochs once policy and rollout are further apart than this", unit="nats per token",
        above=0,
    )  # fmt: skip
    ptx_data: str | None = setting(
        None, help="JSONL of good answers that the policy keeps learning from (PPO-ptx)", affects_results=False
    )
    ptx_coefficient: float = setting(0.0, help="weight of that loss", minimum=0)

    # What holds the policy near the model it started from.
    kl_coefficient: float = setting(0.05, help="weight of the KL divergence from --model", minimum=0)
    kl_target: float | None = setting(
        None, help="KL divergence to hold, by moving the weight (unset: the weight stays)", unit="nats per response",
        above=0,
    )  # fmt: skip
    kl_horizon: int = setting(
        10_000, help="responses over which --kl-target moves the weight", unit="responses", minimum=1
    )
    kl_in: str = setting(
        "auto",
        help="where the KL divergence enters: the reward (auto for gae and rloo) or the loss (auto for grpo, dr-grpo)",
        choices=("auto", "reward", "loss"),
    )
    kl_estimator: str = setting(
        "auto",
        help="of the KL divergence: k1 in the reward, k3 (or k2) in the loss",
        choices=("auto", "k1", "k2", "k3"),
    )

    # What is watched.
    judge: str | None = setting(
        None,
        help="second reward model that is never trained on (unset: one is made from the other half of the rankings)",
    )
    no_judge: bool = setting(False, help="train no judge where --judge names none")
    evaluate_every: int | None = setting(
        10, help="rollouts between evaluations on the validation prompts, one behind the last besides", unit="steps",
        minimum=1,
    )  # fmt: skip
    evaluation_prompts: int = setting(
        128, help="validation prompts answered at each evaluation", unit="prompts", minimum=1
    )
    sample_every: int = setting(
        10, help="rollouts between tables of samples", unit="steps", minimum=1, affects_results=False
    )

    @property
    def kl_place(self) -> str:
        """``reward`` or ``loss``, decided."""
        if self.kl_in != "auto":
            return self.kl_in
        return "loss" if self.advantage in ("grpo", "dr-grpo") else "reward"

    @property
    def kl_kind(self) -> str:
        """The estimator of the KL divergence, decided."""
        if self.kl_estimator != "auto":
            return self.kl_estimator
        return "k1" if self.kl_place == "reward" else "k3"

    @property
    def prompt_limit(self) -> int:
        """The longest prompt, in tokens."""
        return self.max_prompt_length or self.max_length - self.max_response_length

    @property
    def rewards(self) -> tuple[str, ...]:
        """All that is rewarded, in the grammar of --reward."""
        return ((f"model:{self.reward_model}",) if self.reward_model else ()) + self.reward

    def conflicts(self) -> dict[str, str]:
        """What cannot be meant together."""
        found: dict[str, str] = {}
        if not self.rewards:
            found["reward_model"] = "is required, or a --reward"
        if self.advantage in GROUP_ESTIMATORS and self.samples_per_prompt < 2:
            found["samples_per_prompt"] = f"must be at least 2 with --advantage {self.advantage}, which compares them"
        if self.prompt_limit + self.max_response_length > self.max_length or self.prompt_limit < 1:
            needed = max(1, self.prompt_limit) + self.max_response_length
            found["max_length"] = f"must be at least {needed}: a prompt and --max-response-length together"
        if self.minibatches > self.batch_size:
            found["minibatches"] = "must not be more than the prompts of a rollout"
        if bool(self.ptx_data) != bool(self.ptx_coefficient):
            found["ptx_coefficient"] = "and --ptx-data go together"
        if self.no_judge and self.judge:
            found["no_judge"] = "and --judge cannot both be given"
        return found | self._reward_conflicts() | self._kl_conflicts() | self._value_conflicts()

    def _reward_conflicts(self) -> dict[str, str]:
        for text in self.reward:
            try:
                parse_reward(text)
            except UsageError as error:
                return {"reward": str(error).removeprefix("--reward ")}
        return {}

    def _kl_conflicts(self) -> dict[str, str]:
        if self.kl_place == "loss" and self.kl_kind == "k1":
            text = "k1 is no loss: its expected gradient is zero on what the policy sampled; choose k3 or k2"
            return {"kl_estimator": text}
        if self.kl_place == "reward" and self.kl_kind != "k1":
            return {"kl_estimator": "must be k1 where the KL divergence enters the reward"}
        if self.kl_target and self.kl_horizon <= LARGEST_KL_ERROR * self.batch_size * self.samples_per_prompt:
            return {"kl_horizon": "is too short: one rollout could take all of the weight away"}
        return {"kl_target": "needs a --kl-coefficient to move"} if self.kl_target and not self.kl_coefficient else {}

    def _value_conflicts(self) -> dict[str, str]:
        if self.advantage == "gae":
            return {}
        of_gae = ("gamma", "gae_lambda", "value_clip", "value_coefficient", "value_model", "value_warmup",
                  "value_learning_rate")  # fmt: skip
        given = [name for name in of_gae if getattr(self, name) != getattr(PpoConfig, name)]
        return dict.fromkeys(given, "is for --advantage gae, which has a value model")
