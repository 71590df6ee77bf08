"""Starting, cancelling and going on with runs, for people. Who may do it is asked in selectors.py."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid
from annotate.models import Project, Snapshot, User
from training import base_models
from training.models import ModelVersion, Run
from training.recipes.configs import RECIPES, ConfigError, build, to_values
from training.selectors import base_version_for, train_pairs
from training.services.doorbell import ring_on_commit

STARTABLE = (Run.Kind.REWARD,)
SET_BY_SERVER = ("model", "data", "output", "resume", "shard")
MAX_NAME_CHARACTERS = 120
PLACEHOLDERS = {"model": "-", "data": "-", "output": "-"}


@transaction.atomic
def start_run(
    *,
    project: Project,
    started_by: User | None,
    kind: str,
    snapshot: Snapshot,
    base_model: str,
    config: Mapping[str, object],
    name: str = "",
) -> Run:
    """Queues a run after checking all that can be checked before a worker has it; wakes a worker on commit.

    Args:
        base_model: see training.base_models.
        config: settings of the recipe by field name; the rest take their defaults, which are stored with the run.

    Raises:
        Invalid: with one message per wrong field; settings stand under `config.NAME`.
    """
    faults = _snapshot_faults(project, snapshot)
    base_version, model_faults = _base_model(project, kind, base_model)
    settings, config_faults = checked_config(kind, config)
    faults |= model_faults | config_faults
    if len(name) > MAX_NAME_CHARACTERS:
        faults["name"] = _("At most %(limit)d characters.") % {"limit": MAX_NAME_CHARACTERS}
    if faults:
        raise Invalid(_("The run cannot be started."), fields=faults)
    run = Run.objects.create(
        project=project,
        name=name.strip() or _name_from(kind, snapshot)[:MAX_NAME_CHARACTERS],
        kind=kind,
        snapshot=snapshot,
        base_model=base_model,
        base_version=base_version,
        config=settings,
        started_by=started_by,
        queued_at=Now(),
    )
    ring_on_commit(run.queue)
    run.refresh_from_db()
    return run


def _name_from(kind: str, snapshot: Snapshot) -> str:
    return _("%(kind)s from %(snapshot)s") % {"kind": Run.Kind(kind).label, "snapshot": snapshot.name}


def checked_config(kind: str, config: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    """Every setting of the recipe with its value, and what is wrong with those given, by `config.NAME`."""
    if kind not in Run.Kind.values:
        return {}, {"kind": f"One of {', '.join(Run.Kind.values)}."}
    if kind not in STARTABLE:
        words = _("%(kind)s runs cannot be started yet; reward model runs can.")
        return {}, {"kind": words % {"kind": Run.Kind(kind).label}}
    faults = {f"config.{key}": "is set by the server" for key in SET_BY_SERVER if key in config}
    given = {key: value for key, value in config.items() if key not in SET_BY_SERVER}
    try:
        checked = build(RECIPES[kind], {**PLACEHOLDERS, **given})
    except ConfigError as error:
        return {}, faults | {f"config.{key}": text for key, text in error.errors.items()}
    return {key: value for key, value in to_values(checked).items() if key not in SET_BY_SERVER}, faults


def _snapshot_faults(project: Project, snapshot: Snapshot) -> dict[str, str]:
    if snapshot.project_id != project.pk:
        return {"snapshot": _("There is no such snapshot in this project.")}
    # Locked, so that a withdrawal either is seen here or sees this run.
    state = Snapshot.objects.select_for_update(of=("self",), no_key=True).values_list("state", flat=True)
    if state.get(pk=snapshot.pk) != Snapshot.State.FROZEN:
        return {"snapshot": _("This snapshot was withdrawn: nothing may be trained from it.")}
    if train_pairs(snapshot) == 0:
        return {"snapshot": _("This snapshot has nothing to train from: no preference in its train split.")}
    return {}


def _base_model(project: Project, kind: str, name: str) -> tuple[ModelVersion | None, dict[str, str]]:
    version_id = base_models.registry_id(name)
    if version_id is None:
        fault = base_models.name_fault(name)
        return None, {"base_model": fault} if fault else {}
    version = base_version_for(project=project, version_id=version_id)
    if version is None:
        return None, {"base_model": _("There is no such model in the registry of this project.")}
    if kind == Run.Kind.REWARD and version.kind != ModelVersion.Kind.POLICY:
        return None, {"base_model": _("A reward model is trained from a policy, not from a reward model.")}
    return version, {}


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
    locked.refresh_from_db()
    return locked


@transaction.atomic
def resume_run(run: Run) -> Run:
    """Queues a failed or cancelled run again; it goes on from its last checkpoint. Wakes a worker on commit.

    Locks the run's row.

    Raises:
        Conflict: it has not failed and was not cancelled, or its snapshot was withdrawn.
    """
    locked = Run.objects.select_for_update(of=("self",)).select_related("project", "snapshot").get(pk=run.pk)
    if locked.state not in (Run.State.FAILED, Run.State.CANCELLED):
        words = _("Only a failed or cancelled run can be resumed; the state of this one is: %(state)s.")
        raise Conflict(words % {"state": locked.get_state_display().lower()})
    if locked.snapshot is not None and locked.snapshot.state != Snapshot.State.FROZEN:
        raise Conflict(_("The run's snapshot was withdrawn: nothing may be trained from it."))
    locked.state, locked.queued_at, locked.finished_at = Run.State.QUEUED, Now(), None
    locked.cancel_requested_at, locked.reason, locked.times_lost = None, "", 0
    locked.save(
        update_fields=["state", "queued_at", "finished_at", "cancel_requested_at", "reason", "times_lost"],
    )
    ring_on_commit(locked.queue)
    locked.refresh_from_db()
    return locked
