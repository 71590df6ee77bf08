"""What people set for themselves."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import User

#: What a person can set → the field of User that keeps it.
PREFERENCES = {
    "shortcuts": "single_key_shortcuts",
    "theme": "theme",
    "layout": "layout",
    "pause_reminder": "pause_reminder",
    "language": "language",
}


def preferences_of(user: User) -> dict[str, Any]:
    """All that the person can set, by the names of PREFERENCES."""
    return {name: getattr(user, field) for name, field in PREFERENCES.items()}


def set_preferences(*, user: User, given: Mapping[str, object]) -> dict[str, Any]:
    """Keeps what is given, leaves the rest, returns all. Writes the user's row and the object.

    Raises:
        Invalid: an unknown name or value; nothing is kept then. `fields` names each.
    """
    faults = {name: fault for name, value in given.items() if (fault := _fault(name, value))}
    if faults:
        raise Invalid(_("This cannot be set."), fields=faults)
    changes = {PREFERENCES[name]: value for name, value in given.items()}
    User.objects.filter(pk=user.pk).update(**changes)
    for field, value in changes.items():
        setattr(user, field, value)
    return preferences_of(user)


def _fault(name: str, value: object) -> str:
    if name not in PREFERENCES:
        return _("There is no such preference.")
    if name in {"shortcuts", "pause_reminder"}:
        return "" if isinstance(value, bool) else _("Say true or false.")
    allowed = {
        "theme": User.Theme.values,
        "layout": User.Layout.values,
        "language": ["", *dict(settings.LANGUAGES)],
    }[name]
    if isinstance(value, str) and value in allowed:
        return ""
    return _("Choose one of: %(choices)s.") % {"choices": ", ".join(one for one in allowed if one)}
