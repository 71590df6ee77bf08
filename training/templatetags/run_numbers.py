"""How numbers of runs are written for people."""

from django import template

register = template.Library()

Number = float | str | None  # a template passes an empty text for what is not there
NOTHING = "–"


@register.filter
def percent(share: Number) -> str:
    """0.714 → `71.4 %`, kept on one line; a dash for nothing."""
    return NOTHING if share is None or isinstance(share, str) else f"{share * 100:.1f}\N{NO-BREAK SPACE}%"


@register.filter
def figure(value: Number) -> str:
    """Three significant digits, never in scientific notation unless tiny; a dash for nothing."""
    if value is None or isinstance(value, str):
        return NOTHING
    if value != 0 and abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@register.filter
def duration(seconds: Number) -> str:
    """Seconds → `45 s`, `12 min`, `3 h 20 min`, `2 days 4 h`; a dash for nothing."""
    if seconds is None or isinstance(seconds, str):
        return NOTHING
    whole = int(seconds + 0.5)
    if whole < 90:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 36:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


@register.filter
def get(values: dict[str, float], name: str) -> float | None:
    """A measurement by its name, which holds a slash; nothing if it was not taken."""
    return values.get(name)
