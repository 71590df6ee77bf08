"""The shapes of leases: a task to rank, skips, flags and drafts."""

from typing import Any

from rest_framework import serializers

from annotate.api.shapes.base import MessageShape, Shape
from annotate.api.shapes.projects import CriterionShape, FlagShape
from annotate.models import ProjectVersion, Skip, TaskFlag


class NextShape(Shape):
    """How many tasks to hold: open leases count."""

    count = serializers.IntegerField(default=1, min_value=1, max_value=1000)


class LeaseResponseAnswer(serializers.Serializer[Any]):
    """A candidate as the annotator sees it; `thinking` and `model` only where the rules show them."""

    id = serializers.CharField()
    text = serializers.CharField()
    thinking = serializers.CharField(allow_null=True)
    thinking_hidden = serializers.BooleanField()
    model = serializers.CharField(allow_null=True)


class LeaseRulesAnswer(serializers.Serializer[Any]):
    """What the answer may hold, as pinned by the lease."""

    ties = serializers.BooleanField()
    partial = serializers.BooleanField()  # type: ignore[assignment]
    all_bad = serializers.BooleanField()
    strength = serializers.ChoiceField(choices=ProjectVersion.Strength.choices)
    rationale = serializers.ChoiceField(choices=ProjectVersion.Rationale.choices)
    rewrite = serializers.BooleanField()
    criteria = CriterionShape(many=True)
    flags = FlagShape(many=True)


class DraftAnswer(serializers.Serializer[Any]):
    """A draft's version, and its body where it was asked for."""

    version = serializers.IntegerField()
    body = serializers.DictField(required=False)


class LeaseAnswer(serializers.Serializer[Any]):
    """A task to rank. Responses stand in the order to be shown, which the server chose and keeps."""

    id = serializers.UUIDField()
    task = serializers.IntegerField()
    expires_at = serializers.DateTimeField()
    version = serializers.IntegerField(help_text="Number of the project's rules that the answer is checked against.")
    rules = LeaseRulesAnswer()
    prompt = MessageShape(many=True)
    language = serializers.CharField(help_text="Of the prompt, as its record said; may be empty.")
    responses = LeaseResponseAnswer(many=True)
    draft = DraftAnswer(allow_null=True)


class LeasesAnswer(serializers.Serializer[Any]):
    """The caller's leases; fewer than asked for when nothing is left. `closed`: the project gives no new ones."""

    leases = LeaseAnswer(many=True)
    closed = serializers.BooleanField(required=False)


class LeaseTimeAnswer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    expires_at = serializers.DateTimeField()


class SkipShape(Shape):
    reason = serializers.ChoiceField(choices=Skip.Reason.choices)
    note = serializers.CharField(required=False, allow_blank=True, max_length=2000, default="")


class FlagTaskShape(Shape):
    """What the manager should look at."""

    kind = serializers.ChoiceField(choices=TaskFlag.Kind.choices)
    note = serializers.CharField(required=False, allow_blank=True, max_length=2000, default="")


class DraftShape(Shape):
    """The draft, and the version it replaces: 0 for the first one. After the submit, `body.revises` names the last
    revision."""

    version = serializers.IntegerField(min_value=0, max_value=2**31 - 2)
    body = serializers.DictField()
