"""What a page's script sends."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.interchange.records import RecordError, parse_json


def json_body(request: HttpRequest) -> dict[str, Any]:
    """The object that the request's body holds.

    Raises:
        Invalid: it holds none.
    """
    try:
        body = parse_json(request.body.decode())
    except (UnicodeDecodeError, RecordError):
        body = None
    if not isinstance(body, dict):
        raise Invalid(_("A JSON object is wanted."))
    return body
