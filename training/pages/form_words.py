"""What the form that starts runs says: its tabs, and what models are called in them."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from training.models import Run
from training.services.run_settings import EVALUATE_POLICY, EVALUATE_REWARD, Role

Words = str | Promise

# The form's tabs, a recipe each: what it is called, the title of its page, and what its runs do.
TABS: dict[str, tuple[Words, Words, Words]] = {
    Run.Kind.REWARD: (
        Run.Kind.REWARD.label, gettext_lazy("Train: Reward model"),
        gettext_lazy("Learns from rankings to give a response one number."),
    ),
    Run.Kind.SFT: (
        Run.Kind.SFT.label, gettext_lazy("Train: SFT"),
        gettext_lazy(
            "Learns to write as the best answers: demonstrations, rewrites and the best-ranked response of each "
            "ranking."
        ),
    ),
    Run.Kind.DPO: (
        Run.Kind.DPO.label, gettext_lazy("Train: DPO"),
        gettext_lazy("A policy straight from rankings, without a reward model: the baseline that PPO is to beat."),
    ),
    Run.Kind.PPO: (
        Run.Kind.PPO.label, gettext_lazy("Train: PPO"),
        gettext_lazy("A policy that is rewarded for its own answers, and held near the model that it starts from."),
    ),
    EVALUATE_REWARD: (
        gettext_lazy("Evaluate a reward model"), gettext_lazy("Evaluate a reward model"),
        gettext_lazy("How well a reward model agrees with people on held-out rankings."),
    ),
    EVALUATE_POLICY: (
        gettext_lazy("Compare policies"), gettext_lazy("Compare policies"),
        gettext_lazy("A policy beside another on held-out prompts, by a reward model that judges both."),
    ),
    Run.Kind.SAMPLE: (
        gettext_lazy("Sample responses"), gettext_lazy("Sample responses"),
        gettext_lazy("Responses of one to four models to the same prompts, ready to be ranked by people."),
    ),
}  # fmt: skip
# What the first model is called where nothing is trained from it.
BASES: dict[str, tuple[Words, Words]] = {
    EVALUATE_REWARD: (gettext_lazy("Reward model"), gettext_lazy("The reward model that is evaluated.")),
    EVALUATE_POLICY: (gettext_lazy("Policy"), gettext_lazy("The policy that is evaluated.")),
    Run.Kind.SAMPLE: (gettext_lazy("First model"), gettext_lazy("Each model answers every prompt.")),
}
_FURTHER = (gettext_lazy("No further model"), gettext_lazy("To compare, or leave it empty."))
# Of a role: what an empty choice says, and the help; by recipe where a recipe has words of its own.
ROLES: dict[str | tuple[str, str], tuple[Words, Words]] = {
    Role.REWARD: (gettext_lazy("None: only the rewards below"), gettext_lazy("What the policy is rewarded by.")),
    Role.JUDGE: (
        gettext_lazy("None given: one is trained at the start"),
        gettext_lazy(
            "A second reward model that nothing learns from: it tells whether the score can be believed. Without "
            "one the run trains its own, from rankings that the reward model did not learn from if there are any."
        ),
    ),
    (Role.JUDGE, EVALUATE_POLICY): (
        gettext_lazy("Choose one"),
        gettext_lazy("The reward model that judges both; best one that neither learned from."),
    ),
    (Role.REWARD, EVALUATE_POLICY): (
        gettext_lazy("None: the judge chooses"),
        gettext_lazy(
            "Another reward model, such as the one that was trained towards: its score stands beside, and it chooses "
            "the best of four responses of the baseline."
        ),
    ),
    (Role.REWARD, Run.Kind.SAMPLE): (
        gettext_lazy("None: responses have no score"), gettext_lazy("Scores every response."),
    ),
    Role.BASELINE: (gettext_lazy("Choose one"), gettext_lazy("What the policy is compared with, such as its SFT.")),
    Role.MODEL_2: _FURTHER,
    Role.MODEL_3: _FURTHER,
    Role.MODEL_4: _FURTHER,
}  # fmt: skip
