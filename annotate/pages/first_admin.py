"""The page behind the one-time link: the first administrator chooses a name and a password."""

from typing import Any, cast

from django.contrib.auth import login
from django.contrib.auth.forms import BaseUserCreationForm
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from annotate.errors import NotFound
from annotate.models import User
from annotate.services.first_admin import get_open_link, make_first_admin


class FirstAdminForm(BaseUserCreationForm):  # type: ignore[type-arg]  # generic in the stubs alone
    """A name and, twice, a password that the server's validators accept."""

    class Meta:
        model = User
        fields = ("username",)


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters()
@never_cache
def first_admin(request: HttpRequest, secret: str) -> HttpResponse:
    """Looking changes nothing, so a link preview does not use the link up; submitting logs the person in."""
    try:
        get_open_link(secret)
        form = FirstAdminForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            user = _make(secret, form.cleaned_data)
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            return redirect("/")
    except NotFound as refused:
        raise Http404(refused.message) from None
    return render(request, "annotate/first_admin.html", {"form": form}, status=400 if form.errors else 200)


def _make(secret: str, chosen: dict[str, Any]) -> User:
    return make_first_admin(
        secret=secret, username=cast(str, chosen["username"]), password=cast(str, chosen["password1"])
    )
