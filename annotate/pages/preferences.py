"""What a person sets for themselves: theme, language, layout, shortcuts, pauses. One address for page and script."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import translation
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from annotate.models import User
from annotate.pages.access import page, page_data, visitor
from annotate.pages.bodies import json_body
from annotate.services.people import preferences_of, set_preferences

#: The last choice in this browser, for the pages before the log-in.
THEME_COOKIE = "plackett_theme"
COOKIE_AGE = 365 * 24 * 3600
SWITCHES = ("shortcuts", "pause_reminder")
CHOICES = ("theme", "layout", "language")


def _languages() -> list[tuple[str, Any]]:
    return [("", gettext_lazy("As the browser asks")), *settings.LANGUAGES]


class PreferencesForm(forms.Form):
    """Shows what is set. What comes back is checked by the service."""

    theme = forms.ChoiceField(
        label=gettext_lazy("Colours"), choices=User.Theme.choices, widget=forms.RadioSelect, required=False
    )
    language = forms.ChoiceField(label=gettext_lazy("Language"), choices=_languages, required=False)
    layout = forms.ChoiceField(
        label=gettext_lazy("Responses on the ranking page"),
        choices=User.Layout.choices,
        widget=forms.RadioSelect,
        required=False,
    )
    shortcuts = forms.BooleanField(
        label=gettext_lazy("Single-key shortcuts on the ranking page"),
        help_text=gettext_lazy("Switch them off if they get in the way of speech input or a screen reader."),
        required=False,
    )
    pause_reminder = forms.BooleanField(
        label=gettext_lazy("Remind me of a pause after 50 minutes of ranking"), required=False
    )


@require_http_methods(["GET", "HEAD", "POST"])
def preferences(request: HttpRequest) -> HttpResponse:
    """The page, its form, and the same for scripts: JSON in and out. A post changes what it names and nothing else."""
    if request.method != "POST":
        return _show(request)
    return _from_script(request) if request.content_type == "application/json" else _from_form(request)


@page
def _show(request: HttpRequest) -> HttpResponse:
    form = PreferencesForm(initial=preferences_of(visitor(request)))
    return render(request, "annotate/preferences.html", {"form": form})


@page_data
def _from_script(request: HttpRequest) -> HttpResponse:
    given = json_body(request)
    answer = JsonResponse(set_preferences(user=visitor(request), given=given))
    return _remembering(answer, given)


@page
def _from_form(request: HttpRequest) -> HttpResponse:
    given = _given(request)
    everything = set_preferences(user=visitor(request), given=given)
    if "HX-Request" in request.headers:
        return _remembering(HttpResponse(status=204), given)
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure()):
        back = reverse("preferences")
        with translation.override(everything["language"] or translation.get_language()):
            messages.success(request, _("Saved."))
    return _remembering(redirect(back), given)


def _given(request: HttpRequest) -> dict[str, object]:
    """What the form sent. A browser leaves an unchecked box out, so the page's own form says that it is `whole`."""
    given: dict[str, object] = {name: request.POST[name] for name in CHOICES if name in request.POST}
    boxes = SWITCHES if "whole" in request.POST else [name for name in SWITCHES if name in request.POST]
    return given | {name: request.POST.get(name) in {"on", "true"} for name in boxes}


def _remembering(answer: HttpResponse, given: dict[str, Any]) -> HttpResponse:
    """Keeps theme and language in this browser too, for the pages before the log-in."""
    kept = {"theme": (THEME_COOKIE, User.Theme.SYSTEM), "language": (settings.LANGUAGE_COOKIE_NAME, "")}
    for name, (cookie, nothing) in kept.items():
        if name in given and given[name] == nothing:
            answer.delete_cookie(cookie, samesite="Lax")
        elif name in given:
            secure = settings.SESSION_COOKIE_SECURE
            answer.set_cookie(cookie, given[name], max_age=COOKIE_AGE, samesite="Lax", httponly=True, secure=secure)
    return answer
