"""What people set for themselves."""

from annotate.models import User


def set_single_key_shortcuts(*, user: User, on: bool) -> None:
    """Switches the ranking page's single-key shortcuts for this person (WCAG 2.1.4)."""
    User.objects.filter(pk=user.pk).update(single_key_shortcuts=on)
