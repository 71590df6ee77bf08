"""The shapes of projects and their rules."""

from typing import Any

from rest_framework import serializers

from annotate.api.shapes.base import MAX_CRITERIA, Page, Shape
from annotate.models import Project, ProjectVersion, Role

MAX_GUIDELINES_CHARACTERS = 200_000


class CriterionShape(Shape):
    """A scale on which each response is rated: `likert` from low to high, or `yesno` (1 or 0)."""

    key = serializers.SlugField(max_length=50)
    label = serializers.CharField(max_length=200)  # type: ignore[assignment]
    kind = serializers.ChoiceField(choices=["likert", "yesno"], default="likert")
    low = serializers.IntegerField(default=1, min_value=0, max_value=100)
    high = serializers.IntegerField(default=5, min_value=0, max_value=100)
    required = serializers.BooleanField(default=False)  # type: ignore[assignment]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["low"] >= attrs["high"]:
            raise serializers.ValidationError({"high": ["Must be above low."]})
        return attrs


class FlagShape(Shape):
    """A mark that an annotator can put on a response."""

    key = serializers.SlugField(max_length=50)
    label = serializers.CharField(max_length=200)  # type: ignore[assignment]


class RulesShape(Shape):
    """All that decides what an answer may hold."""

    guidelines = serializers.CharField(allow_blank=True, max_length=MAX_GUIDELINES_CHARACTERS, help_text="Markdown.")
    ties = serializers.BooleanField(source="allow_ties")
    partial = serializers.BooleanField(  # type: ignore[assignment]
        source="allow_partial", help_text="Some responses may stay unranked."
    )
    all_bad = serializers.BooleanField(source="allow_all_bad")
    rewrite = serializers.BooleanField(source="allow_rewrite")
    strength = serializers.ChoiceField(choices=ProjectVersion.Strength.choices)
    rationale = serializers.ChoiceField(choices=ProjectVersion.Rationale.choices)
    criteria = CriterionShape(many=True)
    flags = FlagShape(many=True)
    show_models = serializers.BooleanField(help_text="Annotators see which model wrote a response.")
    show_thinking = serializers.BooleanField(help_text="Annotators can unfold a response's thinking text.")

    def validate_criteria(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return _distinct(value)

    def validate_flags(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return _distinct(value)


class RulesChangeShape(RulesShape):
    """Rules of which any may be left as they are."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `partial` of a nested serializer is not looked at: DRF asks the outermost one.
        found = super().get_fields()
        for field in found.values():
            field.required = False
        return found


def _distinct(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(items) > MAX_CRITERIA:
        raise serializers.ValidationError(f"At most {MAX_CRITERIA}.")
    keys = [item["key"] for item in items]
    if len(set(keys)) < len(keys):
        raise serializers.ValidationError("A key stands twice.")
    return [dict(item) for item in items]


class ProjectShape(Shape):
    """What a manager sets in a project. Rules not given keep their value; a change of rules is a new version."""

    slug = serializers.SlugField(max_length=60, help_text="Part of addresses; fixed once chosen.")
    name = serializers.CharField(max_length=120)
    description = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    overlap = serializers.IntegerField(
        required=False, min_value=1, max_value=50, help_text="How many annotators rank each new task."
    )
    lease_seconds = serializers.IntegerField(required=False, min_value=30, max_value=7 * 24 * 3600)
    open_lease_limit = serializers.IntegerField(
        required=False, min_value=1, max_value=1000, help_text="Tasks a person may hold at once."
    )
    skip_limit = serializers.IntegerField(
        required=False, min_value=1, max_value=1000, help_text="After so many skips a task is held for the manager."
    )
    rules = RulesChangeShape(required=False)


class ProjectChangeShape(ProjectShape):
    """The same without the slug, everything optional."""

    slug = None  # type: ignore[assignment]
    name = serializers.CharField(max_length=120, required=False)


class MineShape(serializers.Serializer[Any]):
    """What the caller may do in the project."""

    role = serializers.ChoiceField(choices=Role.choices)
    engineer = serializers.BooleanField()


class ProjectRow(serializers.ModelSerializer[Project]):
    """A project in a list."""

    class Meta:
        model = Project
        fields = (
            "slug",
            "name",
            "description",
            "overlap",
            "lease_seconds",
            "open_lease_limit",
            "skip_limit",
            "created_at",
            "archived_at",
        )


class ProjectAnswer(ProjectRow):
    """A project with the rules now in force and the caller's rights."""

    version = serializers.IntegerField(help_text="Number of the rules now in force.")
    rules = RulesShape()
    me = MineShape()

    class Meta(ProjectRow.Meta):
        fields = (*ProjectRow.Meta.fields, "version", "rules", "me")  # type: ignore[assignment]


class ProjectPage(Page):
    results = ProjectRow(many=True)
