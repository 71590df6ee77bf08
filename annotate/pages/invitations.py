"""The pages behind one-time links: joining a project, choosing a new password. Looking changes nothing."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.forms import BaseUserCreationForm, SetPasswordForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import OneTimeLink, User
from annotate.selectors.people import is_member
from annotate.services.invitations import accept_as_new_person, accept_invitation, get_invitation
from annotate.services.members import get_password_link, set_password_by_link

BACKEND = "django.contrib.auth.backends.ModelBackend"


class NewPersonForm(BaseUserCreationForm):  # type: ignore[type-arg]  # generic in the stubs alone
    """A name and, twice, a password that the server's validators accept."""

    class Meta:
        model = User
        fields = ("username",)
        help_texts = {"username": gettext_lazy("Letters, digits and @ . + - _; you log in with it.")}


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters()
@never_cache
def invitation(request: HttpRequest, secret: str) -> HttpResponse:
    """Whoever is logged in accepts with one press; someone new chooses a name and a password and is logged in."""
    try:
        link = get_invitation(secret)
        if isinstance(request.user, User):
            return _accept(request, request.user, link=link, secret=secret)
        return _join(request, link=link, secret=secret)
    except NotFound as ended:
        return _ended(request, ended)


def _accept(request: HttpRequest, user: User, *, link: OneTimeLink, secret: str) -> HttpResponse:
    refused = ""
    if request.method == "POST":
        try:
            membership = accept_invitation(secret=secret, user=user)
        except Conflict as conflict:
            refused = conflict.message
        else:
            return _welcome(request, membership.project.get_absolute_url(), name=membership.project.name)
    assert link.project is not None
    already = is_member(project=link.project, user=user)
    context = {"link": link, "project": link.project, "refused": refused, "already": already}
    return render(request, "annotate/invitation.html", context, status=409 if refused else 200)


def _join(request: HttpRequest, *, link: OneTimeLink, secret: str) -> HttpResponse:
    form = NewPersonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        name, password = str(form.cleaned_data["username"]), str(form.cleaned_data["password1"])
        try:
            membership = accept_as_new_person(secret=secret, username=name, password=password)
        except Invalid as taken:
            form.add_error("username", taken.message)
        else:
            login(request, membership.user, backend=BACKEND)
            return _welcome(request, membership.project.get_absolute_url(), name=membership.project.name)
    context = {"link": link, "project": link.project, "form": form}
    return render(request, "annotate/invitation.html", context, status=400 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters()
@never_cache
def password_link(request: HttpRequest, secret: str) -> HttpResponse:
    """The person chooses a new password and is logged in with it; their other sessions end."""
    try:
        link = get_password_link(secret)
        assert link.user is not None
        form: forms.Form = SetPasswordForm(link.user, request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            person = set_password_by_link(secret=secret, password=str(form.cleaned_data["new_password1"]))
            login(request, person, backend=BACKEND)
            messages.success(request, _("Your new password is set. Everywhere else you are logged out."))
            return redirect("home")
    except NotFound as ended:
        return _ended(request, ended)
    context: dict[str, Any] = {"form": form, "person": link.user}
    return render(request, "annotate/password_link.html", context, status=400 if form.errors else 200)


def _welcome(request: HttpRequest, address: str, *, name: str) -> HttpResponse:
    messages.success(request, _("Welcome to %(name)s.") % {"name": name})
    return redirect(address)


def _ended(request: HttpRequest, ended: NotFound) -> HttpResponse:
    return render(request, "annotate/link_ended.html", {"reason": ended.message}, status=404)
