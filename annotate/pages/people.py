"""The people of a project, for its managers: invitations, roles, weights, leaving and coming back, new passwords."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from annotate.errors import Forbidden, Refused
from annotate.models import Membership, Project, Role, User
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.selectors.imported_people import page_of_imported
from annotate.selectors.people import get_member, machines_of, members_of
from annotate.selectors.projects import get_project_for, membership_of
from annotate.services.invitations import create_invitation, open_invitations, revoke_invitation
from annotate.services.members import (
    MAX_WEIGHT,
    change_member,
    deactivate_member,
    make_password_link,
    reactivate_member,
    refuse_password_link,
)

ROLE_MEANINGS = [
    (Role.VIEWER.value, gettext_lazy("Viewer: sees how far the project is")),
    (Role.ANNOTATOR.value, gettext_lazy("Annotator: ranks")),
    (Role.REVIEWER.value, gettext_lazy("Reviewer: also reads what others said")),
    (Role.MANAGER.value, gettext_lazy("Manager: also sets rules, imports, and looks after people")),
]
ENGINEER_HELP = gettext_lazy("May freeze snapshots, start runs and export texts.")
ENGINEER_CLOSED = gettext_lazy("Only an engineer can give this right.")


class InvitationForm(forms.Form):
    """Whom to invite, and as what."""

    note = forms.CharField(
        label=gettext_lazy("For whom"),
        max_length=120,
        required=False,
        help_text=gettext_lazy("A name for your own list; nobody else sees it."),
    )
    role = forms.ChoiceField(
        label=gettext_lazy("Role"), choices=ROLE_MEANINGS, initial=Role.ANNOTATOR, widget=forms.RadioSelect
    )
    engineer = forms.BooleanField(label=gettext_lazy("Also an engineer"), required=False, help_text=ENGINEER_HELP)

    def __init__(self, *args: Any, may_give_engineer: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        if not may_give_engineer:
            self.fields["engineer"].disabled = True
            self.fields["engineer"].help_text = ENGINEER_CLOSED


class MemberForm(forms.Form):
    """What a member may do, and how much their rankings weigh."""

    role = forms.ChoiceField(label=gettext_lazy("Role"), choices=ROLE_MEANINGS, widget=forms.RadioSelect)
    engineer = forms.BooleanField(label=gettext_lazy("Also an engineer"), required=False, help_text=ENGINEER_HELP)
    weight = forms.FloatField(
        label=gettext_lazy("Weight in training"),
        min_value=0,
        max_value=MAX_WEIGHT,
        help_text=gettext_lazy("1 is usual; 0 leaves this person's rankings out of training."),
    )

    def __init__(self, *args: Any, may_give_engineer: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        if not may_give_engineer and not self.initial.get("engineer"):
            self.fields["engineer"].disabled = True
            self.fields["engineer"].help_text = ENGINEER_CLOSED


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@page
def people(request: HttpRequest, slug: str) -> HttpResponse:
    """The members and open invitations; posting makes an invitation and shows its link, this once."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.MANAGER)
    own = membership_of(user=user, project=project)
    form = InvitationForm(request.POST if request.method == "POST" else None, may_give_engineer=own.engineer)
    link, address = None, ""
    if request.method == "POST" and form.is_valid():
        link, secret = create_invitation(project=project, by=user, **form.cleaned_data)
        address = request.build_absolute_uri(reverse("invitation", args=[secret]))
        form = InvitationForm(may_give_engineer=own.engineer)
    context = {
        **rights_of(own),
        "project": project,
        "tab": "people",
        "form": form,
        "link": link,
        "address": address,
        "invitations": open_invitations(project),
        "members": list(members_of(project).exclude(user__kind=User.Kind.MACHINE)),
        "machines": machines_of(project),
        **_imported(request, project),
    }
    return render(request, "annotate/people.html", context, status=400 if form.errors else 200)


def _imported(request: HttpRequest, project: Project) -> dict[str, Any]:
    """A page of those who came with imported data: by name, or those whose name holds the words that were sent."""
    words, after = (request.GET.get(name, "").replace("\0", "").strip() for name in ("imported", "after"))
    found, following = page_of_imported(project, words=words, after=after)
    return {
        "imported": found,
        "imported_words": words,
        "imported_wanted": bool(words or after),
        "imported_next": urlencode({"imported": words, "after": following}) if following else "",
    }


@require_POST
@page
def revoke(request: HttpRequest, slug: str, invitation: int) -> HttpResponse:
    """Revokes an invitation that nobody has accepted."""
    project = get_project_for(visitor(request), slug, role=Role.MANAGER)
    revoke_invitation(project=project, link_id=invitation)
    messages.success(request, _("The invitation was revoked; its link does not work any more."))
    return redirect("people", slug)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def member(request: HttpRequest, slug: str, member: int) -> HttpResponse:
    """One member: role, engineer right and weight can be changed; the rest are buttons."""
    found = _found(request, slug, member)
    if found.user.kind == User.Kind.MACHINE:
        return redirect("machine", slug, member)
    form = _member_form(found, user=visitor(request), posted=request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            change_member(membership=found, by=visitor(request), **form.cleaned_data)
        except Refused as refused:
            form.add_error(None, refused.message)
        else:
            messages.success(request, _("Saved: %(name)s.") % {"name": found.user.username})
            return redirect("people", slug)
    return _show_member(request, found, form=form, status=422 if form.errors else 200)


@require_POST
@page
def deactivate(request: HttpRequest, slug: str, member: int) -> HttpResponse:
    """The member becomes an outsider; what they hold goes back to the queue."""
    found = _found(request, slug, member)
    try:
        returned = deactivate_member(membership=found, by=visitor(request))
    except Refused as refused:
        messages.error(request, refused.message)
        return redirect("member", slug, member)
    told = ngettext(
        "%(name)s is deactivated; %(count)d task went back to the queue.",
        "%(name)s is deactivated; %(count)d tasks went back to the queue.",
        returned,
    )
    messages.success(request, told % {"name": found.user.username, "count": returned})
    left = found.user == visitor(request) and not found.user.is_superuser
    return redirect("home") if left else redirect("people", slug)


@require_POST
@page
def reactivate(request: HttpRequest, slug: str, member: int) -> HttpResponse:
    """The member is back, with the role they had."""
    found = _found(request, slug, member)
    reactivate_member(membership=found, by=visitor(request))
    messages.success(request, _("%(name)s is a member again.") % {"name": found.user.username})
    return redirect("people", slug)


@require_POST
@never_cache
@page
def password_link(request: HttpRequest, slug: str, member: int) -> HttpResponse:
    """Makes a link with which the person chooses a new password, and shows it this once."""
    found = _found(request, slug, member)
    secret = make_password_link(membership=found, by=visitor(request))
    address = request.build_absolute_uri(reverse("password_link", args=[secret]))
    return _show_member(request, found, form=_member_form(found, user=visitor(request)), link=address)


def _found(request: HttpRequest, slug: str, member: int) -> Membership:
    project = get_project_for(visitor(request), slug, role=Role.MANAGER)
    return get_member(project, member)


def _member_form(found: Membership, *, user: User, posted: QueryDict | None = None) -> MemberForm:
    own = membership_of(user=user, project=found.project)
    initial = {"role": found.role, "engineer": found.engineer, "weight": found.weight}
    return MemberForm(posted, initial=initial, may_give_engineer=own.engineer)


def _show_member(
    request: HttpRequest, found: Membership, *, form: MemberForm, link: str | None = None, status: int = 200
) -> HttpResponse:
    own = membership_of(user=visitor(request), project=found.project)
    context = {
        **rights_of(own),
        "project": found.project,
        "tab": "people",
        "member": found,
        "form": form,
        "address": link,
        "no_link": _why_no_link(found, by=visitor(request)),
    }
    return render(request, "annotate/member.html", context, status=status)


def _why_no_link(found: Membership, *, by: User) -> str:
    """Why the visitor cannot make a password link for this person; empty if they can."""
    try:
        refuse_password_link(person=found.user, by=by, project=found.project)
    except Forbidden as refused:
        return refused.message
    return ""
