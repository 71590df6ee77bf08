"""The webhooks of a project, for its managers."""

from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from annotate.errors import NotFound
from annotate.models import Project, Role, Webhook, WebhookDelivery
from annotate.selectors.access import Someone
from annotate.selectors.projects import get_project_for

LATEST = 50
_State = WebhookDelivery.State


def webhooks_of(project: Project) -> QuerySet[Webhook]:
    """The project's webhooks with `waiting` (events still to be sent), `failing` (the first of them was tried in vain)
    and `delivered_at` (of the last that was)."""
    waiting = Count("deliveries", filter=Q(deliveries__state=_State.WAITING))
    last = Max("deliveries__finished_at", filter=Q(deliveries__state=_State.DELIVERED))
    found = Webhook.objects.filter(project=project).select_related("project", "created_by")
    tried = WebhookDelivery.objects.filter(webhook=OuterRef("pk"), state=_State.WAITING).exclude(problem="")
    return found.annotate(waiting=waiting, delivered_at=last, failing=Exists(tried)).order_by("pk")


def get_webhook_for(user: Someone, slug: str, webhook_id: int) -> Webhook:
    """A webhook of a project that the user manages.

    Raises:
        NotFound, Forbidden: as get_project_for; or the project has no such webhook.
    """
    project = get_project_for(user, slug, role=Role.MANAGER)
    found = webhooks_of(project).filter(pk=webhook_id).first()
    if found is None:
        raise NotFound(_("There is no such webhook."))
    return found


def get_delivery_for(user: Someone, slug: str, webhook_id: int, delivery_id: int) -> WebhookDelivery:
    """A delivery to a webhook of a project that the user manages.

    Raises:
        NotFound, Forbidden: as get_webhook_for; or there is no such delivery.
    """
    webhook = get_webhook_for(user, slug, webhook_id)
    found = WebhookDelivery.objects.select_related("webhook__project").filter(pk=delivery_id, webhook=webhook).first()
    if found is None:
        raise NotFound(_("There is no such delivery."))
    return found


def latest_deliveries(webhook: Webhook) -> list[WebhookDelivery]:
    """The last 50 deliveries, newest first."""
    return list(WebhookDelivery.objects.filter(webhook=webhook).order_by("-pk")[:LATEST])
