"""Webhooks of a project: made, changed, tried, and what was sent to them."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.filters import filtered, parameters, span, text, word, yes
from annotate.api.idempotency import idempotent
from annotate.api.pagination import PAGE_PARAMETERS, page_of
from annotate.api.shapes.webhooks import (
    DeliveryAnswer,
    DeliveryPage,
    WebhookAnswer,
    WebhookChangeShape,
    WebhookPage,
    WebhookSecretAnswer,
    WebhookShape,
)
from annotate.models import Role, Webhook, WebhookDelivery
from annotate.selectors.projects import get_project_for
from annotate.selectors.webhooks import get_delivery_for, get_webhook_for, webhooks_of
from annotate.services.webhooks import (
    change_webhook,
    create_webhook,
    delete_webhook,
    ping_webhook,
    renew_secret,
    replay_delivery,
)

FILTERS = (
    word(
        "event", "events__contains", Webhook.Event.values, "Only those that are told of it.", same=lambda event: [event]
    ),
    yes("on", "switched_off_at__isnull", "1: only those that are on; 0: only the others."),
)
OF_DELIVERIES = (
    word("state", "state", WebhookDelivery.State.values, "Only in this state."),
    text("event", "event", "Only of this event."),
    *span("created", "created_at", "Happened"),
)


class Webhooks(Endpoint):
    tells_secrets = True

    @extend_schema(
        operation_id="list_webhooks", parameters=[*PAGE_PARAMETERS, *parameters(FILTERS)], responses=WebhookPage
    )
    def get(self, request: Request, slug: str) -> Response:
        """The project's webhooks, without their secrets."""
        project = get_project_for(request.user, slug, role=Role.MANAGER)
        webhooks = filtered(webhooks_of(project), request, FILTERS)
        return Response(page_of(webhooks, request, lambda rows: [webhook_content(row) for row in rows]))

    @extend_schema(operation_id="create_webhook", request=WebhookShape, responses={201: WebhookSecretAnswer})
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        """Has a server told of events from now on. The answer holds the secret that signs deliveries, this once."""
        project = get_project_for(request.user, slug, role=Role.MANAGER)
        shape = WebhookShape(data=request.data)
        shape.is_valid(raise_exception=True)
        webhook = create_webhook(project=project, by=asking(request), **shape.validated_data)
        return Response(_with_secret(webhook, request), status=201)


class OneWebhook(Endpoint):
    @extend_schema(operation_id="read_webhook", responses=WebhookAnswer)
    def get(self, request: Request, slug: str, webhook: int) -> Response:
        """A webhook, without its secret."""
        return Response(webhook_content(get_webhook_for(request.user, slug, webhook)))

    @extend_schema(operation_id="change_webhook", request=WebhookChangeShape, responses=WebhookAnswer)
    def patch(self, request: Request, slug: str, webhook: int) -> Response:
        """Changes what is sent. Switched on again, it goes on with what waited when it was switched off."""
        found = get_webhook_for(request.user, slug, webhook)
        shape = WebhookChangeShape(data=request.data)
        shape.is_valid(raise_exception=True)
        change_webhook(webhook=found, by=asking(request), **shape.validated_data)
        return Response(webhook_content(get_webhook_for(request.user, slug, webhook)))

    @extend_schema(operation_id="delete_webhook", responses={204: None})
    def delete(self, request: Request, slug: str, webhook: int) -> Response:
        """Deletes it with its log; what waits is never sent."""
        delete_webhook(webhook=get_webhook_for(request.user, slug, webhook), by=asking(request))
        return Response(status=204)


class WebhookSecret(Endpoint):
    tells_secrets = True

    @extend_schema(operation_id="renew_webhook_secret", request=None, responses={201: WebhookSecretAnswer})
    @idempotent
    def post(self, request: Request, slug: str, webhook: int) -> Response:
        """Makes a new secret and tells it, this once. For 24 hours the old one signs deliveries too."""
        renewed = renew_secret(webhook=get_webhook_for(request.user, slug, webhook), by=asking(request))
        return Response(_with_secret(renewed, request), status=201)


class WebhookPing(Endpoint):
    @extend_schema(operation_id="ping_webhook", request=None, responses={201: DeliveryAnswer})
    @idempotent
    def post(self, request: Request, slug: str, webhook: int) -> Response:
        """Sends the event `ping`, to see whether it arrives."""
        delivery = ping_webhook(webhook=get_webhook_for(request.user, slug, webhook))
        delivery.refresh_from_db()
        return Response(delivery_content(delivery), status=201)


class Deliveries(Endpoint):
    @extend_schema(
        operation_id="list_deliveries",
        parameters=[*PAGE_PARAMETERS, *parameters(OF_DELIVERIES)],
        responses=DeliveryPage,
    )
    def get(self, request: Request, slug: str, webhook: int) -> Response:
        """What was sent to the webhook in the last 30 days and what waits, in the order of the events."""
        found = get_webhook_for(request.user, slug, webhook)
        rows = filtered(WebhookDelivery.objects.filter(webhook=found), request, OF_DELIVERIES)
        return Response(page_of(rows, request, lambda page: [delivery_content(row) for row in page]))


class Replay(Endpoint):
    @extend_schema(operation_id="replay_delivery", request=None, responses={201: DeliveryAnswer})
    @idempotent
    def post(self, request: Request, slug: str, webhook: int, delivery: int) -> Response:
        """Has the same event sent again, under the same event id, behind what waits."""
        again = replay_delivery(delivery=get_delivery_for(request.user, slug, webhook, delivery))
        again.refresh_from_db()
        return Response(delivery_content(again), status=201)


def _with_secret(webhook: Webhook, request: Request) -> dict[str, Any]:
    found = get_webhook_for(request.user, webhook.project.slug, webhook.pk)
    return webhook_content(found) | {"secret": webhook.secret}


def webhook_content(webhook: Any) -> dict[str, Any]:
    """What WebhookAnswer describes, of a row of selectors.webhooks.webhooks_of."""
    return {
        "id": webhook.pk,
        "url": webhook.url,
        "events": webhook.events,
        "on": webhook.switched_off_at is None,
        "switched_off_at": webhook.switched_off_at,
        "switched_off_because": webhook.switched_off_because,
        "waiting": webhook.waiting,
        "delivered_at": webhook.delivered_at,
        "created_by": webhook.created_by.username if webhook.created_by else None,
        "created_at": webhook.created_at,
    }


def delivery_content(delivery: WebhookDelivery) -> dict[str, Any]:
    """What DeliveryAnswer describes."""
    waiting = delivery.state == WebhookDelivery.State.WAITING
    names = ("event", "event_id", "state", "attempts", "status", "problem", "excerpt", "milliseconds")
    told = {name: getattr(delivery, name) for name in (*names, "created_at", "attempted_at", "finished_at")}
    due_at = delivery.due_at if waiting else None
    return {"id": delivery.pk} | told | {"replay": delivery.is_replay, "due_at": due_at}
