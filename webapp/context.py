"""What every page's template knows."""

from django.http import HttpRequest

from annotate.models import User
from annotate.pages.preferences import THEME_COOKIE


def appearance(request: HttpRequest) -> dict[str, str]:
    """`chosen_theme`: light or dark, or empty for the system's: the user's own, without a log-in the browser's last."""
    user = getattr(request, "user", None)
    theme = user.theme if user is not None and user.is_authenticated else request.COOKIES.get(THEME_COOKIE, "")
    return {"chosen_theme": theme if theme in {User.Theme.LIGHT, User.Theme.DARK} else ""}
