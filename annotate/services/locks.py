"""Locks that last until the transaction ends, for rules that no single row stands for."""

from django.db import connection

from annotate.models import Project, RankingTask


def lock_imports(project: Project) -> None:
    """One chunk of records at a time is written into a project, so that two imports of one file do not collide."""
    _lock(f"imports of {project.pk}")


def lock_withdrawals(project: Project) -> None:
    """A withdrawal and the recording of a snapshot exclude each other, so that no snapshot misses a withdrawal."""
    _lock(f"withdrawals of {project.pk}")


def lock_members(project: Project) -> None:
    """Changes of who may do what come one after the other, so that two cannot each see another manager left."""
    _lock(f"members of {project.pk}")


def lock_decisions(task: RankingTask) -> None:
    """Two managers decide about one task one after the other."""
    _lock(f"decisions about {task.pk}")


def _lock(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"plackett {name}"])
