"""What stays of the checkpoints of runs that are over, and removing the rest. Beat calls it each night.

- succeeded: the newest `kept`, and of a suspect run the one whose weights it published; after `days` days that alone.
- failed or cancelled: all for `resume_days` days, in which the run can go on from them; then none.

Nothing is removed of a run that lives or waits, that an unfinished run waits for, or whose checkpoints somebody wants
kept. A project may have rules of its own (`Retention`); what it leaves open the server's settings say.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import CharField, Exists, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat
from django.utils import timezone
from django.utils.translation import gettext as _

from annotate.errors import Conflict
from training.models import Retention, Run, RunInput, Try
from training.selectors_store import results_of, store_of
from training.store.bundles import CHECKPOINTS, Bundle, RunStore, local_checkpoints
from training.store.errors import StoreError

logger = logging.getLogger(__name__)

AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Rule:
    """How many checkpoints stay of a run that succeeded, and for how many days what stays of which end."""

    kept: int
    days: int
    resume_days: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed of a run, or would be: the steps of checkpoints, and their bytes as far as they are known."""

    run: Run
    steps: list[int]
    size_bytes: int


def rule_of(run: Run) -> Rule:
    """The rule for the runs of its project."""
    own = Retention.objects.filter(project=run.project_id).first()
    usual = Rule(settings.CHECKPOINTS_KEPT, settings.CHECKPOINT_DAYS, settings.RESUME_DAYS)
    given = {} if own is None else {"kept": own.kept, "days": own.days, "resume_days": own.resume_days}
    return replace(usual, **{name: value for name, value in given.items() if value is not None})


def steps_to_keep(run: Run, steps: Collection[int], *, rule: Rule, now: datetime) -> set[int]:
    """Which of a finished run's checkpoints stay."""
    assert run.finished_at is not None
    if run.state != Run.State.SUCCEEDED:
        return set(steps) if now < run.finished_at + timedelta(days=rule.resume_days) else set()
    newest = sorted(steps, reverse=True)
    kept = set(newest[: rule.kept]) if now < run.finished_at + timedelta(days=rule.days) else set()
    best = (run.report or {}).get("kept_step")
    return kept | ({best} if run.suspect and best in newest else set())


def is_due(run: Run, *, rule: Rule, now: datetime) -> bool:
    """Whether there will be nothing more to remove of it later."""
    assert run.finished_at is not None
    days = rule.days if run.state == Run.State.SUCCEEDED else rule.resume_days
    return now >= run.finished_at + timedelta(days=days)


def prunable_runs() -> QuerySet[Run]:
    """Runs that are over and whose checkpoints the rules are about, the first to end first."""
    waiting = Run.objects.exclude(state__in=Run.FINISHED)
    named = Concat(Value("run:"), Cast(OuterRef("pk"), CharField()))
    inputs = RunInput.objects.filter(name=named).exclude(run__state__in=Run.FINISHED)
    return (
        Run.objects.filter(state__in=Run.FINISHED, checkpoints_removed_at=None, keeps_checkpoints=False, tried=None)
        .exclude(Exists(waiting.filter(Q(parent=OuterRef("pk")) | Q(base_model=named))))
        .exclude(Exists(inputs))
        .order_by("finished_at", "pk")
    )


def prune_checkpoints(*, dry_run: bool = False) -> list[Pruned]:
    """Removes what the rules keep no longer; of which runs, and what. One run at a time: its row is locked, so nobody
    resumes it meanwhile. What cannot be removed is tried again the next time.

    Args:
        dry_run: says what would be removed.
    """
    found = []
    for run_id in prunable_runs().values_list("pk", flat=True)[:AT_ONCE]:
        with transaction.atomic():
            run = prunable_runs().select_for_update(of=("self",), no_key=True).filter(pk=run_id).first()
            if run is None:
                continue
            try:
                pruned = _prune(run, now=timezone.now(), dry_run=dry_run)
            except (StoreError, OSError) as problem:
                logger.warning("run %s: its checkpoints stay for now: %s", run.pk, problem)
                continue
        if pruned.steps:
            found.append(pruned)
    return found


def keep_checkpoints(run: Run, *, keep: bool) -> Run:
    """Wants the checkpoints of a run kept, or leaves them to the rules again. What is gone does not come back.

    Raises:
        Conflict: it is a try, which keeps none.
    """
    if Try.objects.filter(pk=run.pk).exists():
        raise Conflict(_("A try keeps no checkpoints."))
    Run.objects.filter(pk=run.pk).update(keeps_checkpoints=keep)
    run.refresh_from_db()
    return run


@dataclass(frozen=True, slots=True)
class Kept:
    """What there is of a run's checkpoints, the newest first as (step, bytes), and until when the rules leave it so.

    Attributes:
        until: None while the run is not over, or where the rules are not asked.
        removed: the rules have removed what there was.
    """

    checkpoints: list[tuple[int, int]]
    until: datetime | None
    removed: bool

    @property
    def size_bytes(self) -> int:
        return sum(size for _step, size in self.checkpoints)


def kept_of(run: Run) -> Kept:
    """What is kept of a run, from this disk and the database: the bucket is not asked."""
    found = {one["step"]: one["size_bytes"] for one in (run.stored or {}).get("checkpoints", ())}
    for step in local_checkpoints(run.folder / "out"):
        with contextlib.suppress(OSError):  # removed this moment
            found[step] = _size(_folder(run, step))
    until = None
    if run.finished_at is not None and not run.keeps_checkpoints and found:
        rule = rule_of(run)
        days = rule.days if run.state == Run.State.SUCCEEDED else rule.resume_days
        until = None if run.checkpoints_removed_at else run.finished_at + timedelta(days=days)
    return Kept(sorted(found.items(), reverse=True), until, run.checkpoints_removed_at is not None)


def _prune(run: Run, *, now: datetime, dry_run: bool) -> Pruned:
    rule = rule_of(run)
    store = store_of(run)
    bundles = store.bundles() if store else []
    sizes = {step: one.size_of(step) for one in reversed(bundles) for step in one.checkpoints}
    sizes |= {step: _size(_folder(run, step)) for step in local_checkpoints(run.folder / "out")}
    kept = steps_to_keep(run, sizes, rule=rule, now=now)
    gone = sorted(set(sizes) - kept)
    if dry_run:
        return Pruned(run, gone, sum(sizes[step] for step in gone))
    for step in gone:
        _remove(_folder(run, step))
    if store and gone:
        _remove_stored(run, store, bundles, kept)
    if is_due(run, rule=rule, now=now):
        run.checkpoints_removed_at = now
        run.save(update_fields=["checkpoints_removed_at"])
    return Pruned(run, gone, sum(sizes[step] for step in gone))


def _remove_stored(run: Run, store: RunStore, bundles: list[Bundle], kept: set[int]) -> None:
    """Leaves the kept checkpoints, each in the newest picture that shows it."""
    left, shown = list[Bundle](), set[int]()
    for one in bundles:
        if new := kept & set(one.checkpoints) - shown:
            left.append(one.only_with(new))
            store.rewrite(left[-1])
            shown |= new
    files = results_of(run)
    store.keep(left, result=Bundle(run.attempt, None, files) if files else None)
    store.store.drop_uploads(f"{store.prefix}/")
    told = [{"step": step, "size_bytes": one.size_of(step)} for one in left for step in one.checkpoints]
    Run.objects.filter(pk=run.pk).update(stored={**(run.stored or {"files": []}), "checkpoints": told})
    run.refresh_from_db(fields=["stored"])


def _folder(run: Run, step: int) -> Path:
    return run.folder / "out" / CHECKPOINTS / f"step-{step}"


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))


def _remove(folder: Path) -> None:
    """By a rename first, so nobody finds half a checkpoint; a link is removed, and nothing behind it."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        trash = folder.with_name(f"{folder.name}.tmp")  # whatever looks for checkpoints removes such a name
        shutil.rmtree(trash, ignore_errors=True)
        os.rename(folder, trash)
        shutil.rmtree(trash)
