"""The shapes of withdrawals, in and out. None holds a text that was withdrawn."""

from typing import Any

from rest_framework import serializers

from annotate.api.queries import MAX_ID
from annotate.api.shapes.base import Shape
from annotate.models import Withdrawal
from annotate.selectors.phrases import KINDS, MAX_CHARACTERS

REASON_CHARACTERS = Withdrawal._meta.get_field("reason").max_length

WHAT = ("annotator", "prompt", "response", "text")


class WithdrawShape(Shape):
    """One of `annotator`, `prompt`, `response`, `text`. A text is only searched for: look at what was found, and
    withdraw it by id."""

    annotator = serializers.CharField(
        required=False, max_length=150, help_text="User name, or the pseudonym of exports: all that the person wrote."
    )
    key = serializers.CharField(required=False, max_length=200, default="", help_text="Export key of the pseudonym.")
    prompt = serializers.IntegerField(required=False, min_value=1, max_value=MAX_ID)
    response = serializers.IntegerField(required=False, min_value=1, max_value=MAX_ID)
    text = serializers.CharField(
        required=False, max_length=MAX_CHARACTERS, trim_whitespace=False, help_text="Needs `dry_run`."
    )
    cursor = serializers.CharField(required=False, max_length=40, help_text="`next` of the search before.")
    reason = serializers.CharField(
        required=False,
        max_length=REASON_CHARACTERS,
        allow_blank=True,
        default="",
        help_text="For the log, where it is kept.",
    )
    dry_run = serializers.BooleanField(default=False, help_text="Say what it would reach and change nothing.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in WHAT if name in attrs]
        if len(given) != 1:
            raise serializers.ValidationError({"annotator": [f"Name one of {', '.join(WHAT)}."]})
        if "text" in attrs and not attrs["dry_run"]:
            words = "A text is only searched for, with dry_run; withdraw what was found by its id."
            raise serializers.ValidationError({"dry_run": [words]})
        if "cursor" in attrs and "text" not in attrs:
            raise serializers.ValidationError({"cursor": ["Only with a text."]})
        return attrs


class WithdrawalAnswer(serializers.Serializer[Any]):
    """A row of the log: who, why, what kind, how much, when."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=Withdrawal.Kind.choices)
    annotator = serializers.CharField(allow_null=True)
    ranking = serializers.CharField(allow_null=True)
    prompt = serializers.CharField(allow_null=True)
    response = serializers.CharField(allow_null=True)
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="What was removed, by kind.")
    by = serializers.CharField(allow_null=True, help_text="Who asked for it.")
    reason = serializers.CharField(allow_blank=True, help_text="Why, in their words.")
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True, help_text="Null while a worker goes on with it.")


class SnapshotName(serializers.Serializer[Any]):
    snapshot = serializers.IntegerField()
    name = serializers.CharField()


class FoundAnswer(serializers.Serializer[Any]):
    """Something that holds the text."""

    kind = serializers.ChoiceField(choices=[kind.name for kind in KINDS])
    id = serializers.CharField()
    prompt = serializers.CharField(allow_null=True)
    task = serializers.IntegerField(allow_null=True)
    annotator = serializers.CharField(allow_null=True)


class WithdrawAnswer(serializers.Serializer[Any]):
    """What it reached, or with `dry_run` would reach."""

    dry_run = serializers.BooleanField()
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="As it was before.")
    snapshots = SnapshotName(many=True, help_text="Frozen before, holding some of it.")
    models = serializers.ListField(child=serializers.CharField(), help_text="Trained from those.")
    withdrawal = WithdrawalAnswer(allow_null=True, help_text="The row of the log; null with `dry_run`.")
    found = FoundAnswer(many=True, help_text="Of a text: where it stands, at most 100.")
    next = serializers.CharField(allow_null=True, help_text="`cursor` to look further; null at the end.")


class WithdrawalPage(serializers.Serializer[Any]):
    results = WithdrawalAnswer(many=True)
    next = serializers.CharField(allow_null=True, help_text="`cursor` of the next page; null at the end.")
