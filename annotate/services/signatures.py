"""How a receiver knows that a delivery is ours, and when it was sent."""

import hashlib
import hmac
import time

from django.utils import timezone

from annotate.models import Webhook, WebhookDelivery


def signed_headers(webhook: Webhook, delivery: WebhookDelivery) -> dict[str, str]:
    """The headers of a delivery. `v1` signs the instant and the body with the webhook's secret.

    For a day after a new secret was made there are two, so that a receiver can change over in its own time.
    """
    sent = int(time.time())
    signatures = [sign(secret, sent, delivery.body.encode()) for secret in _secrets(webhook)]
    return {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Plackett-Webhook/1",
        "Plackett-Event": delivery.event,
        "Plackett-Event-Id": str(delivery.event_id),
        "Plackett-Delivery": str(delivery.pk),
        "Plackett-Signature": ",".join([f"t={sent}", *(f"v1={one}" for one in signatures)]),
    }


def sign(secret: str, sent: int, body: bytes) -> str:
    """HMAC-SHA256 over the instant in Unix seconds, a full stop, and the body; in hexadecimal."""
    return hmac.new(secret.encode(), f"{sent}.".encode() + body, hashlib.sha256).hexdigest()


def _secrets(webhook: Webhook) -> list[str]:
    found = [webhook.secret]
    if webhook.previous_until is not None and webhook.previous_until > timezone.now():
        found.append(webhook.previous_secret)
    return found
