"""The shapes of prompts with their responses, and of what an import reports."""

from typing import Any

from rest_framework import serializers

from annotate.api.shapes.base import MessageShape, Page
from annotate.models import Split


class RecordsShape(serializers.Serializer[Any]):
    """Records in the native format: `prompt` and `responses` at least; see the formats guide."""

    records = serializers.ListField(child=serializers.DictField())


class ResponseAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    key = serializers.CharField(help_text="Its id within the imported record.")
    text = serializers.CharField()
    thinking = serializers.CharField(allow_null=True)
    model = serializers.CharField()
    settings = serializers.DictField()


class PromptAnswer(serializers.Serializer[Any]):
    """A prompt with its responses."""

    id = serializers.CharField()
    external_id = serializers.CharField(allow_null=True)
    prompt = MessageShape(many=True)
    responses = ResponseAnswer(many=True)
    split = serializers.ChoiceField(choices=Split.choices)
    language = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    withdrawn_at = serializers.DateTimeField(allow_null=True)


class FaultAnswer(serializers.Serializer[Any]):
    """A record that was not taken."""

    file = serializers.CharField()
    line = serializers.IntegerField()
    item = serializers.IntegerField(allow_null=True, help_text="Place in a list, from 1.")
    kind = serializers.ChoiceField(choices=["skipped", "conflict"])
    reason = serializers.CharField()


class ImportAnswer(serializers.Serializer[Any]):
    """read = written + unchanged + conflicts + skipped + left_out."""

    read = serializers.IntegerField()
    written = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    conflicts = serializers.IntegerField(help_text="Known with other content; never overwritten.")
    skipped = serializers.IntegerField()
    left_out = serializers.IntegerField(help_text="Left out by the format's own rule; no fault.")
    reasons = serializers.DictField(child=serializers.IntegerField())
    rows = serializers.DictField(child=serializers.IntegerField(), help_text="Rows written, by kind.")
    batch = serializers.IntegerField(allow_null=True)
    dry_run = serializers.BooleanField()
    errors = FaultAnswer(many=True)  # type: ignore[assignment]
    errors_left_off = serializers.IntegerField()


class PromptPage(Page):
    results = PromptAnswer(many=True)
