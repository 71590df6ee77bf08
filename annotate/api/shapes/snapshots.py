"""The shapes of snapshots."""

from typing import Any

from rest_framework import serializers

from annotate.api.shapes.base import Page, Shape
from annotate.models import Snapshot


class FreezeShape(Shape):
    """A name, and which records to take; what is not said of them is the default."""

    name = serializers.CharField(max_length=120)
    filters = serializers.DictField(
        required=False,
        help_text="counted, reviewed, demonstrations, prompts: true or false; kinds, annotator_kinds, splits: lists.",
    )


class SnapshotAnswer(serializers.Serializer[Any]):
    """A snapshot's manifest."""

    format = serializers.CharField()
    project = serializers.CharField()
    snapshot = serializers.IntegerField()
    name = serializers.CharField()
    filters = serializers.DictField()
    counts = serializers.DictField()
    sha256 = serializers.CharField()
    size_bytes = serializers.IntegerField()
    change = serializers.IntegerField(help_text="Everything up to this change was looked at.")
    state = serializers.ChoiceField(choices=Snapshot.State.choices)
    created_at = serializers.DateTimeField()


class SnapshotPage(Page):
    results = SnapshotAnswer(many=True)
