"""Taking an import back while nothing of it has been ranked here."""

from django.db import connection, transaction
from django.db.models.functions import Now

from annotate.errors import Conflict
from annotate.models import ImportBatch, Prompt, Ranking, RankingTask, Skip, Slot, User
from annotate.services.locks import lock_imports, lock_open_slots, lock_withdrawals
from annotate.services.snapshots import snapshots_holding
from annotate.services.withdrawals import withdraw_prompts

# Prompts with rankings cannot be deleted, because rankings never are; those that were withdrawn stand in the feed.
_UNRANKED = """
    SELECT prompt.id FROM annotate_prompt prompt
    WHERE prompt.batch_id = %(batch)s AND prompt.withdrawn_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM annotate_response response
        WHERE response.prompt_id = prompt.id AND response.withdrawn_at IS NOT NULL)
    AND NOT EXISTS (
        SELECT 1 FROM annotate_ranking ranking JOIN annotate_rankingtask task ON task.id = ranking.task_id
        WHERE task.prompt_id = prompt.id)
"""
# Else the same data could not come again with other splits.
_DELETE_EMPTY_GROUPS = """
    DELETE FROM annotate_splitgroup emptied WHERE project_id = %s
    AND NOT EXISTS (SELECT 1 FROM annotate_prompt prompt WHERE prompt.split_group_id = emptied.id)
"""
_DELETE_LEAKS = """
    DELETE FROM annotate_identityleak WHERE response_id IN (
        SELECT id FROM annotate_response WHERE prompt_id IN (SELECT id FROM undone))
"""
_TASKS = "SELECT id FROM annotate_rankingtask WHERE prompt_id IN (SELECT id FROM undone)"

#: Rows that hang on a task, then those that hang on a prompt; referring rows before the rows they refer to.
_OF_TASKS = ("draft", "taskflag", "slot", "lease", "taskresponse")
_OF_PROMPTS = ("rankingtask", "demonstration", "response")


@transaction.atomic
def undo_import(*, batch: ImportBatch, by: User | None = None) -> None:
    """Deletes the batch's prompts with all that came with them; those that came with rankings are withdrawn instead.

    A withdrawn prompt stays known, so importing it again does not bring it back. Rankings that the batch added to
    prompts of other batches stay. Locks the project's imports and withdrawals, the batch's prompts, tasks and slots.

    Raises:
        Conflict: undone before; or (code `in_use`) someone here has ranked, skipped or now holds a task of the batch,
            or a snapshot holds some of it; or (`busy`) somebody was handing a task of it in or back for seconds.
    """
    project = batch.project
    lock_imports(project)
    lock_withdrawals(project)
    if not ImportBatch.objects.select_for_update().filter(pk=batch.pk, undone_at=None).exists():
        raise Conflict("This import was undone before.", code="undone")
    _lock_prompts(batch)
    _refuse_if_used(batch)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE undone ON COMMIT DROP AS {_UNRANKED}", {"batch": batch.pk})
        for table in _OF_TASKS:
            cursor.execute(f"DELETE FROM annotate_{table} WHERE task_id IN ({_TASKS})")
        cursor.execute(_DELETE_LEAKS)
        for table in _OF_PROMPTS:
            cursor.execute(f"DELETE FROM annotate_{table} WHERE prompt_id IN (SELECT id FROM undone)")
        cursor.execute("DELETE FROM annotate_prompt WHERE id IN (SELECT id FROM undone)")
        cursor.execute("DROP TABLE undone")
        cursor.execute(_DELETE_EMPTY_GROUPS, [project.pk])
    undone_by = {"undone_by": by.username} if by else {}
    ImportBatch.objects.filter(pk=batch.pk).update(undone_at=Now(), counts=batch.counts | undone_by)
    ranked = Prompt.objects.filter(batch=batch, withdrawn_at=None)
    withdraw_prompts(project=project, prompts=list(ranked.values_list("pk", flat=True)))


def _lock_prompts(batch: ImportBatch) -> None:
    """Whoever saves a draft of one of them waits, and then learns that it is gone."""
    list(Prompt.objects.select_for_update().filter(batch=batch).order_by("pk").values_list("pk", flat=True))


def _refuse_if_used(batch: ImportBatch) -> None:
    lock_open_slots(RankingTask.objects.filter(prompt__batch=batch))
    held = Slot.objects.filter(task__prompt__batch=batch).exclude(state=Slot.State.FREE).exists()
    ranked = Ranking.objects.filter(task__prompt__batch=batch).exclude(source=Ranking.Source.IMPORT)
    if held or ranked.exists() or Skip.objects.filter(task__prompt__batch=batch).exists():
        raise Conflict("Someone has ranked, skipped or is ranking a task of this import.", code="in_use")
    prompts = list(Prompt.objects.filter(batch=batch).values_list("pk", flat=True))
    rankings = list(Ranking.objects.filter(task__prompt__batch=batch).values_list("pk", flat=True))
    holding = snapshots_holding(project=batch.project, rankings=rankings, prompts=prompts)
    if holding:
        names = ", ".join(repr(snapshot.name) for snapshot in holding)
        raise Conflict(f"Snapshots hold records of this import: {names}.", code="in_use")
