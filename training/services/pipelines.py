"""Several stages from one snapshot with one press: SFT, a reward model on it, PPO with both, DPO as the baseline."""

from collections.abc import Collection, Mapping

from django.db import transaction
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import Project, Snapshot, User
from training.models import Run, RunInput
from training.services.run_inputs import BASE
from training.services.runs import start_run

# In the order in which they are started; each may build on those before it.
STAGES = (Run.Kind.SFT, Run.Kind.REWARD, Run.Kind.DPO, Run.Kind.PPO)
# The other half of the rankings is left to the judge that PPO trains for itself.
OWN_DEFAULTS: dict[str, dict[str, object]] = {Run.Kind.REWARD: {"half": "first"}}


@transaction.atomic
def start_pipeline(
    *,
    project: Project,
    started_by: User | None,
    snapshot: Snapshot,
    base_model: str,
    stages: Collection[str],
    config: Mapping[str, Mapping[str, object]] | None = None,
) -> list[Run]:
    """Starts all stages or none: the first is queued, the others wait for those that they build on.

    SFT starts from the base model; all else from what SFT made, or from the base model where there is no SFT. PPO
    learns from the reward model.

    Args:
        stages: some of STAGES; PPO needs the reward model.
        config: settings by stage, then by name.

    Raises:
        Invalid: with one message per wrong field; those of a stage stand under `STAGE.FIELD`.
    """
    given = config or {}
    faults = _stage_faults(stages, given)
    started: dict[str, Run] = {}
    for kind in STAGES if not faults else ():
        if kind not in stages:
            continue
        sft, reward = started.get(Run.Kind.SFT), started.get(Run.Kind.REWARD)
        inputs = {RunInput.Role.REWARD.value: f"run:{reward.pk}"} if reward and kind == Run.Kind.PPO else {}
        try:
            started[kind] = start_run(
                project=project, started_by=started_by, kind=kind, snapshot=snapshot,
                base_model=f"run:{sft.pk}" if sft else base_model, inputs=inputs,
                config=OWN_DEFAULTS.get(kind, {}) | dict(given.get(kind, {})),
            )  # fmt: skip
        except Invalid as refusal:
            faults |= {_field(kind, name): text for name, text in refusal.fields.items()}
            break
    if faults:
        # Raised inside the transaction: what was started before the fault is taken back.
        raise Invalid(_("Nothing was started."), fields=faults)
    return list(started.values())


def _field(kind: str, name: str) -> str:
    """Snapshot and base model are common to all stages."""
    return name if name in ("snapshot", BASE) else f"{kind}.{name}"


def _stage_faults(stages: Collection[str], config: Mapping[str, object]) -> dict[str, str]:
    known = ", ".join(STAGES)
    if not stages or not set(stages) <= set(STAGES):
        return {"stages": _("Some of %(stages)s.") % {"stages": known}}
    if Run.Kind.PPO in stages and Run.Kind.REWARD not in stages:
        return {"stages": _("PPO learns from the reward model: choose that, too.")}
    if surplus := [name for name in config if name not in stages]:
        return {f"config.{surplus[0]}": _("This stage was not chosen.")}
    return {}
