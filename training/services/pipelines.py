"""Several stages from one snapshot with one press: SFT, a reward model on it, PPO with both, DPO, the evaluation."""

from collections.abc import Collection, Mapping

from django.db import transaction
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import Project, Snapshot, User
from training.models import Run
from training.services.run_inputs import BASE
from training.services.run_settings import Role, default_of
from training.services.runs import MAX_NAME_CHARACTERS, start_run

# In the order in which they are started; each may build on those before it.
STAGES = (Run.Kind.SFT, Run.Kind.REWARD, Run.Kind.DPO, Run.Kind.PPO, Run.Kind.EVALUATE)
POLICIES = (Run.Kind.DPO, Run.Kind.PPO)
# The other half of the rankings is left to the judge.
HALVES = {"reward": "first", "judge": "second"}

Settings = Mapping[str, Mapping[str, object]]


@transaction.atomic
def start_pipeline(
    *,
    project: Project,
    started_by: User | None,
    snapshot: Snapshot,
    base_model: str,
    stages: Collection[str],
    config: Settings | None = None,
) -> list[Run]:
    """Starts all stages or none: the first is queued, the others wait for those that they build on.

    SFT starts from the base model; all else from what SFT made, or from the base model where there is no SFT. PPO
    learns from the reward model. The evaluation sets each policy of DPO and PPO beside what it started from; its judge
    is a reward model of the other half of the rankings, trained for it (and for PPO, which then makes none).

    Args:
        stages: some of STAGES; PPO needs the reward model, the evaluation a policy.
        config: settings by stage, then by name; the judge's are those of the reward model.

    Raises:
        Invalid: with one message per wrong field; those of a stage stand under `STAGE.FIELD`.
    """
    given = config or {}
    faults = _stage_faults(stages, given)
    if not faults:
        chain = _Chain(project, started_by, snapshot, given)
        try:
            chain.start_all(stages, base_model)
            return chain.runs
        except _StageRefused as refused:
            faults = {_field(refused.stage, name): text for name, text in refused.fields.items()}
    # Raised inside the transaction: what was started before the fault is taken back.
    raise Invalid(_("Nothing was started."), fields=faults)


class _StageRefused(Exception):
    """A stage cannot be started."""

    def __init__(self, stage: str, fields: Mapping[str, str]) -> None:
        super().__init__(stage)
        self.stage, self.fields = stage, fields


class _Chain:
    """The stages on their way."""

    def __init__(self, project: Project, started_by: User | None, snapshot: Snapshot, given: Settings) -> None:
        self._project, self._started_by, self._snapshot, self._given = project, started_by, snapshot, given
        self.runs: list[Run] = []

    def start_all(self, stages: Collection[str], base_model: str) -> None:
        """Start the stages, each with what it builds on."""
        base, reward, judge = base_model, "", ""
        if Run.Kind.SFT in stages:
            base = self._start(Run.Kind.SFT, base)
        if Run.Kind.REWARD in stages:
            reward = self._start(Run.Kind.REWARD, base, own={"half": HALVES["reward"]})
        if Run.Kind.EVALUATE in stages:
            judge = self._start_judge(base)
        for kind in POLICIES:
            if kind in stages:
                rewards: dict[str, str] = {Role.REWARD: reward, Role.JUDGE: judge}
                policy = self._start(kind, base, inputs=rewards if kind == Run.Kind.PPO else {})
                if judge:
                    self._start_evaluation(policy, baseline=base, judge=judge, reward=reward)

    def _start_judge(self, base: str) -> str:
        settings = {"seed": 1, **self._given.get(Run.Kind.REWARD, {}), "half": HALVES["judge"]}
        name = _("Judge from %(snapshot)s") % {"snapshot": self._snapshot.name}
        return self._start(Run.Kind.REWARD, base, own=settings, name=name[:MAX_NAME_CHARACTERS], given={})

    def _start_evaluation(self, policy: str, *, baseline: str, judge: str, reward: str) -> None:
        # As long as PPO's responses, for a policy is to be seen where it was trained.
        length = self._given.get(Run.Kind.PPO, {}).get("max_response_length") or default_of(
            "ppo", "max_response_length"
        )
        inputs: dict[str, str] = {Role.BASELINE: baseline, Role.JUDGE: judge, Role.REWARD: reward}
        self._start(Run.Kind.EVALUATE, policy, inputs=inputs, own={"max_response_length": length})

    def _start(
        self,
        kind: str,
        base: str,
        *,
        inputs: Mapping[str, str] | None = None,
        own: Mapping[str, object] | None = None,
        given: Mapping[str, object] | None = None,
        name: str = "",
    ) -> str:
        """A stage's run, by the name under which others build on it."""
        settings = self._given.get(kind, {}) if given is None else given
        try:
            run = start_run(
                project=self._project,
                started_by=self._started_by,
                snapshot=self._snapshot,
                kind=kind,
                base_model=base,
                inputs=inputs,
                config={**(own or {}), **settings},
                name=name,
            )
        except Invalid as refusal:
            raise _StageRefused(kind, refusal.fields) from None
        self.runs.append(run)
        return f"run:{run.pk}"


def _field(kind: str, name: str) -> str:
    """Snapshot and base model are common to all stages."""
    return name if name in ("snapshot", BASE) else f"{kind}.{name}"


def _stage_faults(stages: Collection[str], config: Mapping[str, object]) -> dict[str, str]:
    known = ", ".join(STAGES)
    if not stages or not set(stages) <= set(STAGES):
        return {"stages": _("Some of %(stages)s.") % {"stages": known}}
    if Run.Kind.PPO in stages and Run.Kind.REWARD not in stages:
        return {"stages": _("PPO learns from the reward model: choose that, too.")}
    if Run.Kind.EVALUATE in stages and not set(stages) & set(POLICIES):
        return {"stages": _("The evaluation is of a policy: choose DPO or PPO, too.")}
    # The judge is made as a reward model is, whether there is such a stage or not.
    known_stages = {*stages, Run.Kind.REWARD} if Run.Kind.EVALUATE in stages else set(stages)
    if surplus := [name for name in config if name not in known_stages]:
        return {f"config.{surplus[0]}": _("This stage was not chosen.")}
    return {}
