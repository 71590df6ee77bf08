"""Starting, cancelling and going on with runs, for people. Who may do it is asked in selectors.py."""

from collections.abc import Mapping

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid
from annotate.models import Project, Snapshot, User
from training.models import Run, RunInput, Try
from training.selectors import pairs_of, train_pairs
from training.services.doorbell import ring_on_commit
from training.services.estimates import estimate_run
from training.services.families import cancel_waiting_children
from training.services.placement import placement_faults
from training.services.plans import Estimate, Plan
from training.services.run_inputs import BASE, checked_inputs, is_any_deleted, settle_inputs
from training.services.run_settings import EVALUATE_POLICY, EVALUATE_REWARD, INPUTS, checked_config, recipe_of

MAX_NAME_CHARACTERS = 120


@transaction.atomic
def start_run(
    *,
    project: Project,
    started_by: User | None,
    kind: str,
    snapshot: Snapshot,
    base_model: str,
    config: Mapping[str, object],
    inputs: Mapping[str, str] | None = None,
    name: str = "",
    queue: str = "",
    processes: int = 1,
    nodes: int = 1,
    cloned_from: Run | None = None,
) -> Run:
    """Queues a run after checking all that can be checked before a worker has it; wakes a worker on commit.

    A run that builds on the model of another that has not succeeded yet waits for it.

    Args:
        base_model: see training.base_models.
        config: settings of the recipe by field name; the rest take their defaults, which are stored with the run.
        inputs: models besides the base, by role (see RunInput). An evaluation with a baseline compares two policies;
            one without scores a reward model.
        queue: one of settings.RUN_QUEUES; "" chooses by rule, see services.placement.
        processes, nodes: how many processes on each of how many machines train it together.
        cloned_from: the run of the project whose settings filled in the form.

    Raises:
        Invalid: with one message per wrong field; settings stand under `config.NAME`.
    """
    plan, estimate = look_ahead(
        project=project, kind=kind, snapshot=snapshot, base_model=base_model, config=config, inputs=inputs, name=name,
        queue=queue, processes=processes, nodes=nodes,
    )  # fmt: skip
    if estimate.refusals:
        raise Invalid(_("The run cannot be started."), fields=dict(estimate.refusals))
    models, awaited = plan.models, plan.models.awaited
    run = Run.objects.create(
        project=project,
        name=name.strip() or _name_from(kind, snapshot)[:MAX_NAME_CHARACTERS],
        kind=kind,
        state=Run.State.WAITING if awaited else Run.State.QUEUED,
        snapshot=snapshot,
        # The latest of those awaited: in a chain it is the one that the others end before.
        parent=max(awaited, key=lambda one: one.pk, default=None),
        cloned_from=cloned_from,
        base_model=base_model,
        base_version=models.named[BASE].version,
        config=plan.config,
        queue=estimate.room.queue,
        processes=processes,
        nodes=nodes,
        started_by=started_by,
        queued_at=None if awaited else Now(),
    )
    for role, one in models.named.items():
        if role != BASE:
            RunInput.objects.create(run=run, role=role, name=one.name, version=one.version)
    ring_on_commit(run.queue)
    run.refresh_from_db()
    return run


@transaction.atomic
def look_ahead(
    *,
    project: Project,
    kind: str,
    snapshot: Snapshot,
    base_model: str,
    config: Mapping[str, object],
    inputs: Mapping[str, str] | None = None,
    name: str = "",
    queue: str = "",
    processes: int = 1,
    nodes: int = 1,
) -> tuple[Plan, Estimate]:
    """What start_run would do, with what the run would need; nothing is made.

    Locks what the run would depend on until the transaction ends.

    Raises:
        Invalid: as start_run, but for what the estimate itself refuses.
    """
    given = {role: model.strip() for role, model in (inputs or {}).items() if model.strip()}
    recipe = recipe_of(kind, given)
    # The snapshot's row is locked first, then those of runs.
    snapshot_faults = _snapshot_faults(project, snapshot)
    models = checked_inputs(project, kind, {BASE: base_model, **given})
    chosen, faults = checked_config(kind, config, inputs=given.keys() & set(INPUTS.get(recipe, ())))
    if nothing := nothing_for(recipe, snapshot, split=str(chosen.get("split", ""))):
        faults["snapshot"] = nothing
    # What is wrong with a model says more than that a setting lacks it.
    faults |= models.faults | snapshot_faults
    faults |= placement_faults(queue=queue, processes=processes, nodes=nodes, shard=chosen.get("shard"))
    if len(name) > MAX_NAME_CHARACTERS:
        faults["name"] = _("At most %(limit)d characters.") % {"limit": MAX_NAME_CHARACTERS}
    if faults:
        raise Invalid(_("The run cannot be started."), fields=faults)
    plan = Plan(project, kind, snapshot, models, chosen, queue, processes, nodes)
    return plan, estimate_run(plan)


def _name_from(kind: str, snapshot: Snapshot) -> str:
    return _("%(kind)s from %(snapshot)s") % {"kind": Run.Kind(kind).label, "snapshot": snapshot.name}


def _snapshot_faults(project: Project, snapshot: Snapshot) -> dict[str, str]:
    if snapshot.project_id != project.pk:
        return {"snapshot": _("There is no such snapshot in this project.")}
    # Locked, so that a withdrawal either is seen here or sees this run.
    state = Snapshot.objects.select_for_update(of=("self",), no_key=True).values_list("state", flat=True)
    if state.get(pk=snapshot.pk) != Snapshot.State.FROZEN:
        return {"snapshot": _("This snapshot was withdrawn: nothing may be trained from it.")}
    return {}


def nothing_for(recipe: str, snapshot: Snapshot, *, split: str = "") -> str:
    """Why a run of this recipe would find nothing in the snapshot; "" if it may find something.

    Args:
        split: what an evaluation reads.
    """
    lines = {name: int(snapshot.counts.get(name, 0)) for name in ("rankings", "demonstrations", "prompts")}
    if recipe in (Run.Kind.REWARD, Run.Kind.DPO) and train_pairs(snapshot) == 0:
        return _("This snapshot has nothing to train from: no preference in its train split.")
    if recipe == Run.Kind.SFT and not lines["rankings"] + lines["demonstrations"]:
        return _("This snapshot has nothing to train from: no ranking and no demonstration.")
    if recipe == Run.Kind.PPO and not sum(lines.values()):
        return _("This snapshot has nothing to train from: no prompt.")
    if recipe == EVALUATE_REWARD and split and pairs_of(snapshot, split) == 0:
        return _("This snapshot has nothing to evaluate on: no preference in its split %(split)s.") % {"split": split}
    if recipe in (EVALUATE_POLICY, Run.Kind.SAMPLE) and not sum(lines.values()):
        return _("This snapshot has no prompt to answer.")
    return ""


@transaction.atomic
def cancel_run(run: Run) -> Run:
    """Stops the run: at once if no worker has it, else its worker ends the trainer within seconds.

    Locks the run's row. Cancelling it twice is harmless.

    Raises:
        Conflict: it is finished.
    """
    locked = Run.objects.select_for_update(of=("self",)).select_related("project", "snapshot").get(pk=run.pk)
    if locked.state == Run.State.STOPPING or locked.state == Run.State.CANCELLED:
        return locked
    if locked.is_finished:
        raise Conflict(_("The run is already over: %(state)s.") % {"state": locked.get_state_display().lower()})
    locked.cancel_requested_at = Now()
    if locked.is_active:
        locked.state = Run.State.STOPPING
    else:
        locked.state, locked.finished_at = Run.State.CANCELLED, Now()
    locked.save(update_fields=["state", "cancel_requested_at", "finished_at"])
    cancel_waiting_children(locked)
    locked.refresh_from_db()
    return locked


@transaction.atomic
def resume_run(run: Run) -> Run:
    """Queues a failed or cancelled run again; it goes on from its last checkpoint. Wakes a worker on commit.

    Locks the run's row.

    Raises:
        Conflict: it is a try, has not failed and was not cancelled, its snapshot was withdrawn, a model that it reads
            was deleted, or a run that it builds on has not succeeded.
    """
    locked = Run.objects.select_for_update(of=("self",)).select_related("project", "snapshot").get(pk=run.pk)
    if locked.state not in (Run.State.FAILED, Run.State.CANCELLED):
        words = _("Only a failed or cancelled run can be resumed; the state of this one is: %(state)s.")
        raise Conflict(words % {"state": locked.get_state_display().lower()})
    if Try.objects.filter(pk=locked.pk).exists():
        raise Conflict(_("A try is not resumed: begin another one."))
    if locked.snapshot is not None and locked.snapshot.state != Snapshot.State.FROZEN:
        raise Conflict(_("The run's snapshot was withdrawn: nothing may be trained from it."))
    if is_any_deleted(locked):
        raise Conflict(_("A model that the run reads was deleted."))
    if not settle_inputs(locked):
        raise Conflict(_("A run that this one builds on has made no model yet; resume that one first."))
    locked.state, locked.queued_at, locked.finished_at = Run.State.QUEUED, Now(), None
    locked.cancel_requested_at, locked.reason, locked.times_lost = None, "", 0
    locked.checkpoints_removed_at = None
    locked.save(
        update_fields=[
            "state", "queued_at", "finished_at", "cancel_requested_at", "reason", "times_lost",
            "checkpoints_removed_at",
        ],
    )  # fmt: skip
    ring_on_commit(locked.queue)
    locked.refresh_from_db()
    return locked
