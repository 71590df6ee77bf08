"""Choosing a format and its options for an export: the first lines, the download, and the same for scripts."""

import json
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from annotate.errors import Refused
from annotate.interchange import EXPORTS
from annotate.interchange.options import MAX_KEY_CHARACTERS, OPTIONS, Option
from annotate.pages import format_words
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.selectors.projects import get_project_for, membership_of
from annotate.services.exports import first_rows

ROWS = 3
#: Of one text in them, as shown on the page.
CHARACTERS = 300


class ExportForm(forms.Form):
    """The format, and the options that it takes."""

    format = forms.ChoiceField(label=_("Format"), choices=[(name, format_words.EXPORTS[name]) for name in EXPORTS])

    def __init__(self, format: str, given: Any) -> None:
        super().__init__(given)
        for option in OPTIONS:
            if option.name in EXPORTS[format].options:
                self.fields[option.name] = _field(option, str(given.get(option.name, "")))


def _field(option: Option, given: str) -> forms.Field:
    label, help_text = format_words.OPTIONS[option.name]
    common: dict[str, Any] = {"label": label, "help_text": help_text, "required": False}
    if option.values:
        values = option.values if option.default else ("", *option.values)
        return forms.ChoiceField(choices=[(one, format_words.VALUES[option.name, one]) for one in values], **common)
    if option.name == "annotator_kinds":
        return forms.ChoiceField(choices=list(format_words.WHOSE.items()), **common)
    if option.name == "key":
        return forms.CharField(max_length=MAX_KEY_CHARACTERS, **common)
    return forms.ChoiceField(choices=list(_shares(given).items()), **common)


def _shares(given: str) -> dict[str, Any]:
    """Least agreements in words, and whichever other share the address holds."""
    try:
        other = given not in format_words.AGREEMENT and 0 <= float(given) <= 1
    except ValueError:
        other = False
    return format_words.AGREEMENT | ({given: f"{float(given):.0%}"} if other else {})


@require_safe
@page
def export_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The form is the address: what it asks for can be kept as a link."""
    user = visitor(request)
    project = get_project_for(user, slug, engineer=True)
    name = request.GET.get("format", "plackett")
    name = name if name in EXPORTS else "plackett"
    defaults = {option.name: option.default for option in OPTIONS}
    form = ExportForm(name, defaults | {"format": name} | request.GET.dict())
    context = {
        **rights_of(membership_of(user=user, project=project)),
        "project": project,
        "tab": "export",
        "form": form,
        "format": name,
    }
    if form.is_valid():
        asked = {key: str(form.cleaned_data[key]) for key in EXPORTS[name].options if form.cleaned_data[key]}
        context |= _offered(request, slug, name, asked)
        context["all_at_once"] = EXPORTS[name].options_from(asked).by_task
        try:
            rows = first_rows(project, format=name, options=asked, limit=ROWS)
            context["rows"] = [_shown(row) for row in rows]
        except Refused as refused:
            form.add_error(None, refused.message)
    return render(request, "annotate/export.html", context, status=422 if form.errors else 200)


def _offered(request: HttpRequest, slug: str, format: str, asked: dict[str, str]) -> dict[str, Any]:
    """The address of the download, and the two commands that do the same."""
    asked = {name: text for name, text in sorted(asked.items()) if text != _default(name)}
    address = f"{reverse('api-export', args=[slug])}?{urlencode({'format': format} | asked)}"
    output = f"{slug}-{format}.{asked.get('as', 'jsonl')}"
    flags = " ".join(f"--{name.replace('_', '-')} {_quoted(text)}" for name, text in asked.items())
    whole = request.build_absolute_uri(address)
    return {
        "address": address,
        "curl": f'curl --fail -H "Authorization: Token $PLACKETT_TOKEN" "{whole}" -o {output}',
        "command": f"python manage.py export_data --project {slug} --format {format} {flags}{' ' if flags else ''}"
        f"--output {output}",
    }


def _default(name: str) -> str:
    return next(option.default for option in OPTIONS if option.name == name)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'" if not text.replace(".", "").isalnum() else text


def _shown(row: dict[str, Any]) -> str:
    return json.dumps(_shortened(row), ensure_ascii=False, indent=1)


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= CHARACTERS else f"{value[:CHARACTERS].rstrip()}…"
    if isinstance(value, dict):
        return {key: _shortened(one) for key, one in value.items()}
    return [_shortened(one) for one in value] if isinstance(value, list) else value
