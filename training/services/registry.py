"""What people do with models of the registry: give them a stage, delete them. Who may is asked in the selectors.

Everything that is done stands in ModelEvent, written in the transaction that does it.
"""

import logging

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid
from annotate.models import Project, User
from training.models import ModelEvent, ModelVersion, Run
from training.selectors_models import doubts_about, runs_reading
from training.services.model_removal import NotRemoved, remove_places

logger = logging.getLogger(__name__)

Stage = ModelVersion.Stage
What = ModelEvent.What

MAX_REASON_CHARACTERS = 2_000
TRUSTED = (Stage.CANDIDATE, Stage.PRODUCTION)


@transaction.atomic
def promote_model(
    model: ModelVersion, *, stage: str, actor: User | None, confirmed: bool = False, reason: str = ""
) -> ModelVersion:
    """Gives the model a stage; who was in production before, of the same project and kind, is archived with it.

    Locks the project's row, so that promotions follow one another. Writes an event for each model that moves; the same
    stage again changes nothing.

    Args:
        confirmed: somebody has read what there is to doubt and wants it nevertheless.
        reason: why; must be given where something is to be doubted.

    Raises:
        Invalid: there is no such stage.
        Conflict: the model was deleted (code `deleted`), or it is to be trusted although something speaks against it
            and that was not confirmed with a reason (`needs_confirmation`; `extra` has the `doubts`).
    """
    if stage not in Stage.values:
        raise Invalid(_("There is no such stage."), fields={"stage": f"One of {', '.join(Stage.values)}."})
    Project.objects.select_for_update(no_key=True).get(pk=model.project_id)
    locked = _lock(model)
    if locked.deleted_at is not None:
        raise Conflict(_("This model was deleted: its files are gone, its lineage stays."), code="deleted")
    reason = reason.strip()[:MAX_REASON_CHARACTERS]
    if locked.stage == stage:
        return locked
    _refuse_doubtful(locked, stage, confirmed=confirmed, reason=reason)
    if stage == Stage.PRODUCTION:
        present = ModelVersion.objects.filter(project=locked.project_id, kind=locked.kind, stage=Stage.PRODUCTION)
        for other in present.select_for_update(no_key=True):
            _move(other, Stage.ARCHIVED, actor=actor, reason=f"Model {locked.pk} took its place.")
    _move(locked, Stage(stage), actor=actor, reason=reason)
    return locked


def _refuse_doubtful(model: ModelVersion, stage: str, *, confirmed: bool, reason: str) -> None:
    doubts = doubts_about(model) if stage in TRUSTED else []
    if not doubts or (confirmed and reason):
        return
    words = _("%(doubts)s Confirm that it is to be trusted nevertheless, and say why.")
    raise Conflict(words % {"doubts": " ".join(doubts)}, code="needs_confirmation", extra={"doubts": doubts})


def _move(model: ModelVersion, stage: ModelVersion.Stage, *, actor: User | None, reason: str) -> None:
    ModelEvent.objects.create(
        model=model, actor=actor, what=What.STAGE, from_stage=model.stage, to_stage=stage, reason=reason
    )
    model.stage = stage
    model.save(update_fields=["stage"])


def delete_model(model: ModelVersion, *, actor: User | None) -> ModelVersion:
    """Marks the model deleted and, once that is committed, removes its files. Its row and its lineage stay.

    Locks the model's row. Deleting it again tries again to remove what is left.

    Raises:
        Conflict: it is in production (code `in_production`), or runs that are not finished read it (`in_use`; `extra`
            has their ids as `runs`).
    """
    with transaction.atomic():
        locked = _lock(model)
        if locked.deleted_at is None:
            _refuse_needed(locked)
            locked.deleted_at = Now()
            locked.save(update_fields=["deleted_at"])
            ModelEvent.objects.create(model=locked, actor=actor, what=What.DELETED)
        # Whatever goes wrong there, the deletion stands: the row says that the files are still to be removed.
        transaction.on_commit(lambda: remove_files(locked), robust=True)
    model.refresh_from_db()
    return model


def _refuse_needed(model: ModelVersion) -> None:
    if model.stage == Stage.PRODUCTION:
        raise Conflict(_("It is in production: give it another stage first."), code="in_production")
    reading = list(runs_reading(model).exclude(state__in=Run.FINISHED))
    if reading:
        words = _("Runs that are not finished read it: %(runs)s. Cancel them, or wait for them.")
        numbers = [run.pk for run in reading]
        raise Conflict(words % {"runs": ", ".join(map(str, numbers))}, code="in_use", extra={"runs": numbers})


@transaction.atomic
def remove_files(model: ModelVersion) -> bool:
    """Removes the files of a deleted model; returns whether they are gone. Trying again is harmless.

    Locks the model's row, so that one tries at a time. Writes an event: that they are gone, or why not, unless the last
    one said the same.
    """
    locked = ModelVersion.objects.select_for_update(no_key=True).get(pk=model.pk)
    if locked.deleted_at is None:
        raise Conflict(_("Only the files of a deleted model are removed."))
    try:
        remove_places(locked)
    except NotRemoved as problem:
        logger.warning("model %s: %s", locked.pk, problem)
        _note_kept(locked, str(problem))
        return False
    if locked.files_removed_at is None:
        locked.files_removed_at = Now()
        locked.save(update_fields=["files_removed_at"])
        ModelEvent.objects.create(model=locked, what=What.FILES_REMOVED)
    return True


def remove_left_files(*, limit: int = 20) -> int:
    """Tries again to remove the files of deleted models that are still there; returns how many models are rid of them.

    For whatever looks after the server now and then.
    """
    left = ModelVersion.objects.filter(deleted_at__isnull=False, files_removed_at=None).order_by("deleted_at")[:limit]
    return sum(remove_files(model) for model in left)


def note_push(model: ModelVersion, *, where: str) -> None:
    """Writes down that the model was published, and where."""
    ModelEvent.objects.create(model=model, what=What.PUSHED, reason=where)


def _note_kept(model: ModelVersion, problem: str) -> None:
    last = ModelEvent.objects.filter(model=model).order_by("-pk").first()
    if last is None or (last.what, last.reason) != (What.FILES_KEPT, problem):
        ModelEvent.objects.create(model=model, what=What.FILES_KEPT, reason=problem)


def _lock(model: ModelVersion) -> ModelVersion:
    """The model's row, held against runs that would begin from it."""
    rows = ModelVersion.objects.select_for_update(of=("self",)).select_related("project", "run__snapshot", "parent")
    return rows.get(pk=model.pk)
