"""What every page's template knows."""

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from annotate.models import User
from annotate.pages.preferences import THEME_COOKIE
from training.selectors import engineered_projects


def rights(request: HttpRequest) -> dict[str, Any]:
    """`sees_runs`: the visitor is an engineer somewhere, or a superuser. Asked of the database by pages that use it."""
    return {"sees_runs": SimpleLazyObject(lambda: _sees_runs(request))}


def _sees_runs(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return False
    return user.is_superuser or engineered_projects(user).exists()


def appearance(request: HttpRequest) -> dict[str, str]:
    """`chosen_theme`: light or dark, or empty for the system's: the user's own, without a log-in the browser's last."""
    user = getattr(request, "user", None)
    theme = user.theme if user is not None and user.is_authenticated else request.COOKIES.get(THEME_COOKIE, "")
    return {"chosen_theme": theme if theme in {User.Theme.LIGHT, User.Theme.DARK} else ""}
