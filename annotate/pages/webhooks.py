"""The webhooks of a project, for its managers: made, changed, tried, and what was sent to them."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from annotate.addresses import MAX_URL_CHARACTERS
from annotate.errors import Refused
from annotate.models import Project, Role, User, Webhook, WebhookDelivery
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.selectors.projects import get_project_for, membership_of
from annotate.selectors.webhooks import get_delivery_for, get_webhook_for, latest_deliveries, webhooks_of
from annotate.services.webhooks import (
    OF_ENGINEERS,
    change_webhook,
    create_webhook,
    delete_webhook,
    ping_webhook,
    renew_secret,
    replay_delivery,
)

_State = WebhookDelivery.State
_COLOURS = {
    _State.DELIVERED: "good",
    _State.GIVEN_UP: "bad",
    _State.WAITING: "now",
}


class WebhookForm(forms.Form):
    """Where to, and what is told."""

    url = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=MAX_URL_CHARACTERS,
        widget=forms.URLInput(attrs={"placeholder": "https://…"}),
        help_text=gettext_lazy("Of a server of yours that takes POST requests."),
    )
    events = forms.MultipleChoiceField(
        label=gettext_lazy("What it is told"), choices=Webhook.Event.choices, widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, engineer: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        if not engineer:
            field: Any = self.fields["events"]
            field.choices = [choice for choice in Webhook.Event.choices if choice[0] not in OF_ENGINEERS]
            field.help_text = _("Only an engineer can have it told of snapshots and runs.")


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@page
def webhooks(request: HttpRequest, slug: str) -> HttpResponse:
    """The webhooks; posting makes one and shows its secret, this once."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.MANAGER)
    form = _form(request, project, user=user)
    made = None
    if request.method == "POST" and form.is_valid():
        try:
            made = create_webhook(project=project, by=user, **form.cleaned_data)
        except Refused as refused:
            _show_faults(form, refused)
        else:
            form = _form(None, project, user=user)
    context = _context(project, user=user) | {"form": form, "made": made, "webhooks": list(webhooks_of(project))}
    return render(request, "annotate/webhooks.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def webhook(request: HttpRequest, slug: str, webhook: int) -> HttpResponse:
    """One webhook with what was sent to it; posting changes it."""
    user = visitor(request)
    found = get_webhook_for(user, slug, webhook)
    form = _form(request, found.project, user=user, found=found)
    if request.method == "POST" and form.is_valid():
        try:
            change_webhook(webhook=found, by=user, **form.cleaned_data)
        except Refused as refused:
            _show_faults(form, refused)
        else:
            messages.success(request, _("Saved."))
            return redirect("webhook", slug, webhook)
    return _show(request, found, form=form)


@require_POST
@page
def switch(request: HttpRequest, slug: str, webhook: int) -> HttpResponse:
    """Switches a webhook on or off."""
    on = request.POST.get("on") == "yes"
    change_webhook(webhook=get_webhook_for(visitor(request), slug, webhook), by=visitor(request), on=on)
    messages.success(request, _("Switched on: what waited is being sent.") if on else _("Switched off."))
    return redirect("webhook", slug, webhook)


@require_POST
@never_cache
@page
def secret(request: HttpRequest, slug: str, webhook: int) -> HttpResponse:
    """Makes a new secret and shows it, this once."""
    user = visitor(request)
    found = get_webhook_for(user, slug, webhook)
    renewed = renew_secret(webhook=found, by=user)
    return _show(request, found, form=_form(None, found.project, user=user, found=found), secret=renewed.secret)


@require_POST
@page
def ping(request: HttpRequest, slug: str, webhook: int) -> HttpResponse:
    """Sends a test."""
    found = get_webhook_for(visitor(request), slug, webhook)
    try:
        ping_webhook(webhook=found)
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        messages.success(request, _("A test is on its way; look at the list in a moment."))
    return redirect("webhook", slug, webhook)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def delete(request: HttpRequest, slug: str, webhook: int) -> HttpResponse:
    """Asks, and deletes a webhook with its log."""
    user = visitor(request)
    found = get_webhook_for(user, slug, webhook)
    if request.method == "POST":
        delete_webhook(webhook=found, by=user)
        messages.success(request, _("The webhook is deleted."))
        return redirect("webhooks", slug)
    return render(request, "annotate/webhook_delete.html", {"project": found.project, "webhook": found})


@require_POST
@page
def replay(request: HttpRequest, slug: str, webhook: int, delivery: int) -> HttpResponse:
    """Has an event sent again."""
    found = get_delivery_for(visitor(request), slug, webhook, delivery)
    try:
        replay_delivery(delivery=found)
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        messages.success(request, _("It is sent again, behind whatever waits."))
    return redirect("webhook", slug, webhook)


def _form(request: HttpRequest | None, project: Project, *, user: User, found: Webhook | None = None) -> WebhookForm:
    own = membership_of(user=user, project=project)
    posted = request.POST if request is not None and request.method == "POST" else None
    initial = {"url": found.url, "events": found.events} if found else {"events": ["ranking.submitted"]}
    return WebhookForm(posted, initial=initial, engineer=own.engineer)


def _show_faults(form: WebhookForm, refused: Refused) -> None:
    for name, message in refused.fields.items() or [("", refused.message)]:
        form.add_error(name if name in form.fields else None, message)


def _context(project: Project, *, user: User) -> dict[str, Any]:
    return {**rights_of(membership_of(user=user, project=project)), "project": project, "tab": "setup"}


def _show(request: HttpRequest, found: Webhook, *, form: WebhookForm, secret: str = "") -> HttpResponse:
    deliveries = [{"row": one, "colour": _COLOURS[_State(one.state)]} for one in latest_deliveries(found)]
    context = _context(found.project, user=visitor(request)) | {"form": form, "webhook": found, "secret": secret}
    status = 422 if form.errors else 200
    return render(request, "annotate/webhook.html", context | {"deliveries": deliveries}, status=status)
