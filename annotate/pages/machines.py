"""Machine annotators of a project, for its managers: made, changed, given a new token."""

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from annotate.errors import Refused
from annotate.models import Membership, Role
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.selectors.people import get_machine_for, machines_of
from annotate.selectors.projects import get_project_for, membership_of
from annotate.services.machines import (
    MOST_OPEN_LEASES,
    OPEN_LEASES,
    change_machine,
    create_machine,
    renew_machine_token,
)
from annotate.services.members import MAX_WEIGHT


class MachineForm(forms.Form):
    """Where a machine's rankings go, and how many tasks it may hold."""

    open_lease_limit = forms.IntegerField(
        label=gettext_lazy("Tasks it may hold at once"),
        min_value=1,
        max_value=MOST_OPEN_LEASES,
        initial=OPEN_LEASES,
    )
    fills_places = forms.BooleanField(
        label=gettext_lazy("It fills places that people would fill"),
        required=False,
        help_text=gettext_lazy(
            "Otherwise it ranks beside them: overlap, progress and forecast stay those of people alone."
        ),
    )


class NewMachineForm(MachineForm):
    """The same with its name."""

    name = forms.CharField(
        label=gettext_lazy("Name"), max_length=60, help_text=gettext_lazy("Small letters, digits and hyphens.")
    )
    field_order = ("name", "open_lease_limit", "fills_places")


class OneMachineForm(MachineForm):
    """The same with the weight of its rankings."""

    weight = forms.FloatField(label=gettext_lazy("Weight in training"), min_value=0, max_value=MAX_WEIGHT)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@page
def machines(request: HttpRequest, slug: str) -> HttpResponse:
    """The machines; posting makes one and shows its token, this once."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.MANAGER)
    form = NewMachineForm(request.POST if request.method == "POST" else None)
    made, token = None, ""
    if request.method == "POST" and form.is_valid():
        try:
            made, token = create_machine(project=project, by=user, **form.cleaned_data)
        except Refused as refused:
            _show_faults(form, refused)
        else:
            form = NewMachineForm()
    context = {
        **rights_of(membership_of(user=user, project=project)),
        "project": project,
        "tab": "people",
        "form": form,
        "made": made,
        "token": token,
        "machines": machines_of(project),
    }
    return render(request, "annotate/machines.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def machine(request: HttpRequest, slug: str, machine: int) -> HttpResponse:
    """One machine; posting changes it."""
    found = get_machine_for(visitor(request), slug, machine)
    form = _form(found, request)
    if request.method == "POST" and form.is_valid():
        try:
            change_machine(membership=found, by=visitor(request), **form.cleaned_data)
        except Refused as refused:
            _show_faults(form, refused)
        else:
            messages.success(request, _("Saved: %(name)s.") % {"name": found.user.username})
            return redirect("machines", slug)
    return _show(request, found, form)


@require_POST
@never_cache
@page
def token(request: HttpRequest, slug: str, machine: int) -> HttpResponse:
    """Makes a new token and shows it, this once."""
    found = get_machine_for(visitor(request), slug, machine)
    secret = renew_machine_token(membership=found, by=visitor(request))
    return _show(request, found, _form(found), token=secret)


def _form(found: Membership, request: HttpRequest | None = None) -> OneMachineForm:
    limit = found.open_lease_limit or found.project.open_lease_limit
    initial = {"open_lease_limit": limit, "fills_places": found.fills_places, "weight": found.weight}
    posted = request.POST if request is not None and request.method == "POST" else None
    return OneMachineForm(posted, initial=initial)


def _show_faults(form: MachineForm, refused: Refused) -> None:
    for name, message in refused.fields.items() or [("", refused.message)]:
        form.add_error(name if name in form.fields else None, message)


def _show(request: HttpRequest, found: Membership, form: MachineForm, *, token: str = "") -> HttpResponse:
    context = {
        **rights_of(membership_of(user=visitor(request), project=found.project)),
        "project": found.project,
        "tab": "people",
        "member": found,
        "form": form,
        "token": token,
    }
    return render(request, "annotate/machine.html", context, status=422 if form.errors else 200)
