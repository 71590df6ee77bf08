"""A person's own tokens of the API: made, looked at, revoked."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from annotate.errors import Refused
from annotate.models import ApiToken, User
from annotate.pages.access import page, visitor
from annotate.selectors.tokens import get_token_for, scopes_open_to, tokens_of
from annotate.services.tokens import create_own_token, revoke_token

SCOPE_WORDS = {
    ApiToken.Scope.READ: gettext_lazy("read: look at and download what you may see"),
    ApiToken.Scope.ANNOTATE: gettext_lazy("annotate: take tasks and rank"),
    ApiToken.Scope.WRITE: gettext_lazy("write: change projects, bring prompts in, freeze snapshots"),
    ApiToken.Scope.TRAIN: gettext_lazy("train: start and stop runs, change models"),
}
DAYS = (7, 30, 90, 365)
USUAL_DAYS = 90


def _lasting() -> list[tuple[str, str]]:
    days = [(str(one), ngettext("%(days)d day", "%(days)d days", one) % {"days": one}) for one in DAYS]
    return [*days, ("", str(pgettext_lazy("how long a token works", "Until it is revoked")))]


class TokenForm(forms.Form):
    """A token to be made. Which scopes there are to choose from is for the person's rights."""

    name = forms.CharField(
        label=gettext_lazy("What it is for"),
        max_length=ApiToken._meta.get_field("name").max_length,
        help_text=gettext_lazy("Tells it from your others, for example the machine that it is for."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("What it may be used for"), widget=forms.CheckboxSelectMultiple
    )
    days = forms.ChoiceField(label=gettext_lazy("Works for"), choices=_lasting, required=False, initial=str(USUAL_DAYS))

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        open_to = scopes_open_to(user)
        self.fields["scopes"].choices = [(one.value, words) for one, words in SCOPE_WORDS.items() if one in open_to]  # type: ignore[attr-defined]
        self.fields["scopes"].initial = [ApiToken.Scope.READ]


@require_http_methods(["GET", "HEAD", "POST"])
@page
def tokens(request: HttpRequest) -> HttpResponse:
    """The tokens that one has; posting makes one and shows it, this once."""
    user = visitor(request)
    form = TokenForm(user, request.POST if request.method == "POST" else None)
    made, secret = None, ""
    if request.method == "POST" and form.is_valid():
        try:
            made, secret = _make(user, form.cleaned_data)
        except Refused as refused:
            form.add_error(None, refused.message)
        else:
            form = TokenForm(user)
    context = {"form": form, "made": made, "secret": secret, "tokens": tokens_of(user)}
    return render(request, "annotate/tokens.html", context, status=422 if form.errors else 200)


def _make(user: User, given: dict[str, Any]) -> tuple[ApiToken, str]:
    expires_at = timezone.now() + timedelta(days=int(given["days"])) if given["days"] else None
    return create_own_token(user=user, name=given["name"], scopes=given["scopes"], expires_at=expires_at)


@require_POST
@page
def revoke(request: HttpRequest, token: int) -> HttpResponse:
    """One of one's own stops working at once."""
    found = get_token_for(visitor(request), token)
    revoke_token(token=found)
    messages.success(request, _("Revoked: %(name)s.") % {"name": found.name})
    return redirect("tokens")
