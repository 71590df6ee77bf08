"""Opaque places in a project's feed, valid for one history of one database."""

import base64
import binascii
import uuid
from dataclasses import dataclass

from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid
from annotate.models import Counter, DatabaseEpoch, Project

#: The history of a database in which no epoch was ever written.
FIRST_EPOCH = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to and including change number `change` of the project was seen."""

    project_id: int
    change: int
    epoch: uuid.UUID

    def encode(self) -> str:
        plain = f"{self.project_id}.{self.change}.{self.epoch.hex}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """The cursor that `encode` wrote.

        Raises:
            Invalid: it was not written by `encode`.
        """
        try:
            plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
            project_id, change, epoch = plain.split(".")
            return cls(int(project_id), int(change), uuid.UUID(epoch))
        except (binascii.Error, ValueError) as error:
            raise Invalid(
                _("This is no cursor; give one back exactly as it came."),
                code="invalid_cursor",
                fields={"since": "Not a cursor."},
            ) from error


def current_epoch() -> uuid.UUID:
    """The history that this database is in: the last epoch that was started."""
    newest = DatabaseEpoch.objects.order_by("-started_at", "-id").first()
    return newest.id if newest else FIRST_EPOCH


def last_change(project: Project) -> int:
    """The number up to which every change is committed: numbers are drawn under a lock that lasts until the commit."""
    counter = Counter.objects.filter(project=project, name=Counter.Name.CHANGE).first()
    return counter.value if counter else 0


def cursor_at(*, project: Project, change: int) -> Cursor:
    return Cursor(project.pk, change, current_epoch())


def change_of(cursor: str, *, project: Project) -> int:
    """The change number of a cursor that was given out for this project.

    Raises:
        Invalid: not a cursor, or another project's.
        Conflict: from another history of this database (code `unknown_epoch`): start again without a cursor.
    """
    found = Cursor.decode(cursor)
    if found.project_id != project.pk:
        raise Invalid(
            _("This cursor belongs to another project."),
            code="invalid_cursor",
            fields={"since": "A cursor of another project."},
        )
    # A number not yet reached comes from a future that a restored backup does not have, whatever the epoch says.
    if found.epoch != current_epoch() or found.change > last_change(project):
        raise Conflict(
            _("The database was restored since this cursor was given; export everything again, without `since`."),
            code="unknown_epoch",
        )
    return found.change
