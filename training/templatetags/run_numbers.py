"""How numbers of runs are written for people."""

from typing import Any

from django import template
from django.utils.formats import get_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

register = template.Library()

Number = float | str | None  # a template passes an empty text for what is not there
NOTHING = "–"


@register.filter
def percent(share: Number) -> str:
    """0.714 → `71.4 %`, kept on one line; a dash for nothing."""
    return NOTHING if share is None or isinstance(share, str) else _written(f"{share * 100:.1f}\N{NO-BREAK SPACE}%")


@register.filter
def figure(value: Number) -> str:
    """Three significant digits, never in scientific notation unless tiny; a dash for nothing."""
    if value is None or isinstance(value, str):
        return NOTHING
    if value != 0 and abs(value) < 0.001:
        return _written(f"{value:.2e}")
    return _written(f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}")


def _written(number: str) -> str:
    """With the decimal sign of the reader's language."""
    return number.replace(".", get_format("DECIMAL_SEPARATOR"))


@register.filter
def duration(seconds: Number) -> str:
    """Seconds → `45 s`, `12 min`, `3 h 20 min`, `2 days 4 h`; a dash for nothing."""
    if seconds is None or isinstance(seconds, str):
        return NOTHING
    whole = int(seconds + 0.5)
    if whole < 90:
        return _("%(seconds)d s") % {"seconds": whole}
    minutes = (whole + 30) // 60
    if minutes < 90:
        return _("%(minutes)d min") % {"minutes": minutes}
    hours, minutes = divmod(minutes, 60)
    if hours < 36:
        words = _("%(hours)d h %(minutes)d min") if minutes else _("%(hours)d h")
        return words % {"hours": hours, "minutes": minutes}
    days, hours = divmod(hours, 24)
    words = ngettext("%(days)d day", "%(days)d days", days) if not hours else _("%(days)d days %(hours)d h")
    return words % {"days": days, "hours": hours}


@register.filter
def get(values: dict[str, float], name: str) -> float | None:
    """A measurement by its name, which holds a slash; nothing if it was not taken."""
    return values.get(name)


@register.filter
def device_hours(hours: Number) -> str:
    """0.004 → `0.01 h`, 1.7 → `1.7 h`, 128.4 → `128 h`: never nothing for what took some time."""
    if hours is None or isinstance(hours, str):
        return NOTHING
    if hours < 1:
        digits = f"{max(hours, 0.01):.2f}" if hours > 0 else "0"
    else:
        digits = f"{hours:.1f}" if hours < 100 else f"{hours:.0f}"
    return _written(f"{digits}\N{NO-BREAK SPACE}h")


@register.filter
def money(cost: Any) -> str:
    """`4.25 EUR`; a dash for nothing."""
    return _written(f"{cost.amount:.2f}\N{NO-BREAK SPACE}{cost.currency}") if cost else NOTHING
