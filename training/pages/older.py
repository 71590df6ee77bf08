"""Long lists, the newest first, a page at a time."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _

from annotate.errors import NotFound

ROWS_A_PAGE = 50
MAX_ID = 2**63 - 1


def newest(rows: Any, request: HttpRequest) -> tuple[list[Any], int | None]:
    """A page of rows that come newest first, and where the next older page begins.

    Raises:
        NotFound: the address asks for a page that cannot be.
    """
    before = request.GET.get("before", "")
    if before:
        if not before.isascii() or not before.isdecimal() or int(before[:20]) > MAX_ID:
            raise NotFound(_("There is no such page."))
        rows = rows.filter(pk__lt=int(before))
    found = list(rows[: ROWS_A_PAGE + 1])
    return found[:ROWS_A_PAGE], found[ROWS_A_PAGE - 1].pk if len(found) > ROWS_A_PAGE else None
