"""What a list says of a report."""

from collections.abc import Mapping
from typing import Any

from django import template

from training.pages.report import report_headline

register = template.Library()


@register.filter
def headline(report: Mapping[str, Any] | None) -> Any:
    """The first main figure of a report, of whatever kind its run is; nothing where nothing was held out."""
    return report_headline(report)
