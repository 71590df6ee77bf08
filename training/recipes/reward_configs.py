"""The flags of ``recipes.reward`` and ``recipes.evaluate_reward``. Standard library only."""

from dataclasses import dataclass

from training.recipes.common_configs import CommonConfig, ModelConfig
from training.recipes.settings import setting


@dataclass(frozen=True, kw_only=True)
class RewardConfig(CommonConfig):
    """A reward model from rankings."""

    loss: str = setting(
        "pairwise",
        help="model of a ranking: Bradley-Terry over its pairs, or Plackett-Luce over its choices, best first",
        choices=("pairwise", "plackett-luce"),
    )
    ties: str = setting(
        "skip",
        help="two responses of one tier: not compared, trained towards one half, or a third outcome with a learned "
        "threshold (rao-kupper: of pairs only; davidson: of pairs, and of tiers under plackett-luce)",
        choices=("skip", "soft", "rao-kupper", "davidson"),
    )
    unranked: str = setting(
        "ignore",
        help="responses left unranked: take no part, or stand below everything placed",
        choices=("ignore", "below"),
    )
    strength: str = setting(
        "ignore",
        help="slightly / clearly / much better between tiers: not used, a margin that the winner has to lead by, or "
        "ordered outcomes of adjacent tiers with learned thresholds",
        choices=("ignore", "margin", "ordinal"),
    )
    margin_scale: float = setting(
        0.5, help="margin per step of strength, with --strength margin", unit="nats", minimum=0
    )
    centring: float = setting(
        0.0,
        help="weight of the squared mean score of a prompt's responses; pulls scores of all prompts around one zero",
        minimum=0,
    )
    threshold_learning_rate: float = setting(
        0.01, help="peak learning rate of the thresholds of ties and strengths", above=0
    )
    early_stopping: int | None = setting(
        None,
        help="stop after this many validations without a lower loss, and keep the best weights (unset: never)",
        unit="validations",
        minimum=1,
    )
    ensemble: int = setting(
        1, help="models trained one after the other, each with a seed of its own", unit="models", minimum=1, maximum=64
    )

    half: str = setting(
        "all",
        help="which half of the train prompts to learn from: two models of different halves can check one another",
        choices=("all", "first", "second"),
    )

    def conflicts(self) -> dict[str, str]:
        """Losses, ties and strengths that are no model together."""
        if self.loss == "plackett-luce" and self.ties == "rao-kupper":
            return {"ties": "rao-kupper is for pairs: with --loss plackett-luce choose davidson, soft or skip"}
        if self.loss == "plackett-luce" and self.strength != "ignore":
            return {"strength": "must be ignore with --loss plackett-luce: strengths are of pairs"}
        if self.strength == "ordinal" and self.ties in ("soft", "davidson"):
            return {"ties": "must be rao-kupper or skip with --strength ordinal, whose first threshold is that of ties"}
        return {}


@dataclass(frozen=True, kw_only=True)
class EvaluateRewardConfig(ModelConfig):
    """Scores of a reward model, ours or another's, on rankings or pairs."""

    model: str = setting(help="reward model: a folder or hub id with one label, or the folder of one of our runs")
    data: str = setting(
        help="a snapshot, a JSON or JSONL file of {input, output_1, output_2, label}, or JSONL of "
        "{prompt, chosen, rejected}",
        affects_results=False,
    )
    resume: bool = setting(False, help="leave a finished --output as it is", affects_results=False)
    split: str = setting(
        "test",
        help="which part of a snapshot is scored; other files are scored whole",
        choices=("validation", "test"),
    )
