"""The shapes of webhooks, in and out."""

from typing import Any

from rest_framework import serializers

from annotate.addresses import MAX_URL_CHARACTERS
from annotate.api.shapes.base import Shape
from annotate.models import Webhook, WebhookDelivery


class WebhookShape(Shape):
    """Where to, and what is told."""

    url = serializers.CharField(max_length=MAX_URL_CHARACTERS)
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=Webhook.Event.choices), min_length=1, max_length=len(Webhook.Event)
    )


class WebhookChangeShape(Shape):
    """What is not sent stays."""

    url = serializers.CharField(max_length=MAX_URL_CHARACTERS, required=False)
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=Webhook.Event.choices),
        min_length=1,
        max_length=len(Webhook.Event),
        required=False,
    )
    on = serializers.BooleanField(required=False, help_text="false: nothing is sent, and nothing new is kept to be.")


class WebhookAnswer(serializers.Serializer[Any]):
    """A webhook. Its secret is told once, when it is made."""

    id = serializers.IntegerField()
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.ChoiceField(choices=Webhook.Event.choices))
    on = serializers.BooleanField()
    switched_off_at = serializers.DateTimeField(allow_null=True)
    switched_off_because = serializers.CharField(help_text="Empty if a person did it.")
    waiting = serializers.IntegerField(help_text="Events still to be sent.")
    delivered_at = serializers.DateTimeField(allow_null=True, help_text="When the last one was.")
    created_by = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class WebhookSecretAnswer(WebhookAnswer):
    """The same with the secret, this once."""

    secret = serializers.CharField()


class WebhookPage(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True)
    results = WebhookAnswer(many=True)


class DeliveryAnswer(serializers.Serializer[Any]):
    """An event for a webhook, and what came of it."""

    id = serializers.IntegerField()
    event = serializers.CharField()
    event_id = serializers.UUIDField(help_text="The same at every attempt and replay.")
    replay = serializers.BooleanField()
    state = serializers.ChoiceField(choices=WebhookDelivery.State.choices)
    attempts = serializers.IntegerField()
    status = serializers.IntegerField(allow_null=True, help_text="Of the last answer.")
    problem = serializers.CharField(help_text="Of the last attempt; empty if there was none.")
    excerpt = serializers.CharField(help_text="The beginning of the last answer.")
    milliseconds = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    attempted_at = serializers.DateTimeField(allow_null=True)
    due_at = serializers.DateTimeField(allow_null=True, help_text="When it is sent next, at the earliest.")
    finished_at = serializers.DateTimeField(allow_null=True)


class DeliveryPage(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True)
    results = DeliveryAnswer(many=True)
