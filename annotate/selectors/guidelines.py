"""What a project asks of those who rank, and whether somebody has read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from annotate.models import Project, User

#: Number and text of the guidelines in force, and whether the user has read that text.
IN_FORCE = """
    SELECT version.number, version.guidelines, EXISTS (
        SELECT 1 FROM annotate_readingreceipt receipt
        JOIN annotate_projectversion seen ON seen.id = receipt.version_id
        WHERE receipt.user_id = %(user)s AND seen.project_id = version.project_id
          AND seen.guidelines = version.guidelines) AS read
    FROM annotate_projectversion version WHERE version.project_id = %(project)s
    ORDER BY version.number DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Guidelines:
    """The guidelines now in force: of which version, their text, and whether a certain person has read them."""

    number: int
    text: str
    read: bool


def guidelines_for(user: User, project: Project) -> Guidelines:
    """The guidelines now in force; read in an earlier version counts while the text is the same.

    A new version that changes other rules asks nobody to read again; without guidelines there is nothing to read.
    """
    with connection.cursor() as cursor:
        cursor.execute(IN_FORCE, {"user": user.pk, "project": project.pk})
        return guidelines_of_row(cursor.fetchone())


def guidelines_of_row(row: Sequence[Any]) -> Guidelines:
    """What a row of IN_FORCE says."""
    number, text, read = row
    return Guidelines(number, text, read or not text.strip())
