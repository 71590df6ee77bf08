"""The shapes that go in and out. They check types and sizes; what an answer may hold is the services' business.

Serializers that only describe an answer (the rows are made by `annotate.api.content`) exist for the OpenAPI document.
"""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from annotate.api.queries import MAX_ID
from annotate.models import Project, ProjectVersion, Ranking, Review, Role, Skip, Snapshot, Split, TaskFlag
from annotate.preferences import MAX_RATIONALE_CHARACTERS, MAX_REWRITE_CHARACTERS, Answer, Rewrite

MAX_RESPONSES = 9
MAX_CRITERIA = 30
MAX_SECONDS = 7 * 24 * 3600
MAX_GUIDELINES_CHARACTERS = 200_000


class Shape(serializers.Serializer[Any]):
    """A serializer that refuses keys it does not know: a misspelt `strenghts` must not be a silent loss."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := [str(name) for name in data if name not in self.fields]):
            raise serializers.ValidationError({name: ["There is no such field."] for name in unknown})
        return super().to_internal_value(data)


# --- projects and their rules ----------------------------------------------------------------------------------------


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


# --- leases ----------------------------------------------------------------------------------------------------------


class NextShape(Shape):
    """How many tasks to hold: open leases count."""

    count = serializers.IntegerField(default=1, min_value=1, max_value=1000)


class MessageShape(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=["system", "user", "assistant"])
    content = serializers.CharField()


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


# --- rankings --------------------------------------------------------------------------------------------------------


class _Id(serializers.CharField):
    """The id of a response, as `next/` gave it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"max_length": 20} | options))


class RewriteShape(Shape):
    """A better text that the annotator wrote, starting from the response `of`."""

    of = _Id()
    text = serializers.CharField(max_length=MAX_REWRITE_CHARACTERS, trim_whitespace=False)


def _ids() -> serializers.ListField:
    return serializers.ListField(child=_Id(), max_length=MAX_RESPONSES)


class AnswerShape(Shape):
    """What an annotator says about a task; ids are those of the lease's responses."""

    ranking = serializers.ListField(
        child=_ids(), max_length=MAX_RESPONSES, help_text="Tiers of response ids, best first; equal ones share a tier."
    )
    unranked = serializers.ListField(
        child=_Id(), max_length=MAX_RESPONSES, required=False, help_text="The responses that stand in no tier."
    )
    strengths = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=3, allow_null=True),
        max_length=MAX_RESPONSES,
        required=False,
        allow_null=True,
        help_text="One per gap between tiers: 1 slightly, 2 clearly, 3 much better, null not said.",
    )
    all_bad = serializers.BooleanField(required=False, default=False)
    ratings = serializers.DictField(
        child=serializers.DictField(child=serializers.IntegerField(min_value=-1000, max_value=1000)),
        required=False,
        help_text="Response id → criterion → whole number.",
    )
    flags = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField(max_length=50), max_length=MAX_CRITERIA),
        required=False,
        help_text="Response id → flags.",
    )
    rationale = serializers.CharField(
        required=False, allow_null=True, allow_blank=True, max_length=MAX_RATIONALE_CHARACTERS
    )
    rewrite = RewriteShape(required=False, allow_null=True)
    seconds = serializers.FloatField(
        required=False, allow_null=True, min_value=0, max_value=MAX_SECONDS, help_text="Time spent on the task."
    )

    def answer(self) -> Answer:
        """The validated content as the services take it."""
        given = self.validated_data
        rewrite = given.get("rewrite")
        return Answer(
            ranking=given["ranking"],
            unranked=given.get("unranked", []),
            strengths=given.get("strengths"),
            all_bad=given["all_bad"],
            ratings=given.get("ratings", {}),
            flags=given.get("flags", {}),
            rationale=given.get("rationale"),
            rewrite=Rewrite(of=rewrite["of"], text=rewrite["text"]) if rewrite else None,
        )


class SubmitShape(AnswerShape):
    lease = serializers.UUIDField()


class ReviseShape(AnswerShape):
    supersedes = serializers.IntegerField(min_value=1, max_value=MAX_ID, help_text="Id of the revision you saw last.")


class RewriteAnswer(serializers.Serializer[Any]):
    of = serializers.CharField()
    text = serializers.CharField()


class ReviewShape(Shape):
    """What a reviewer thinks of somebody else's ranking; to give one back takes a note."""

    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    note = serializers.CharField(
        required=False, allow_blank=True, max_length=2000, default="", help_text="For the annotator."
    )


class ReviewAnswer(serializers.Serializer[Any]):
    """A review; the last one of a ranking holds."""

    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    note = serializers.CharField(allow_blank=True)
    reviewer = serializers.CharField()
    created_at = serializers.DateTimeField()


class RankingAnswer(serializers.Serializer[Any]):
    """A ranking, one revision of it. A withdrawn one keeps its order, but none of its texts."""

    id = serializers.CharField()
    task = serializers.IntegerField()
    annotator = serializers.CharField(help_text="User name; exports hold pseudonyms instead.")
    revision = serializers.IntegerField()
    supersedes = serializers.CharField(allow_null=True)
    superseded_by = serializers.CharField(allow_null=True)
    counted = serializers.BooleanField(help_text="False for work beyond the overlap.")
    source = serializers.ChoiceField(choices=Ranking.Source.choices)  # type: ignore[assignment]
    version = serializers.IntegerField(help_text="Number of the project's rules it was made under.")
    ranking = serializers.ListField(child=serializers.ListField(child=serializers.CharField()))
    unranked = serializers.ListField(child=serializers.CharField())
    strengths = serializers.ListField(child=serializers.IntegerField(allow_null=True))
    all_bad = serializers.BooleanField()
    ratings = serializers.DictField(child=serializers.DictField(child=serializers.IntegerField()))
    flags = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))
    rationale = serializers.CharField(allow_null=True)
    rewrite = RewriteAnswer(allow_null=True)
    presented_order = serializers.ListField(child=serializers.CharField())
    seconds = serializers.FloatField(allow_null=True)
    submitted_at = serializers.DateTimeField()
    withdrawn_at = serializers.DateTimeField(allow_null=True)
    review = ReviewAnswer(allow_null=True, help_text="The one that holds; a new revision has none.")


# --- prompts ---------------------------------------------------------------------------------------------------------


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


# --- snapshots -------------------------------------------------------------------------------------------------------


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


# --- the caller ------------------------------------------------------------------------------------------------------


class MembershipRow(MineShape):
    project = serializers.CharField(help_text="Slug.")


class MeAnswer(serializers.Serializer[Any]):
    """Who asks, and what for."""

    username = serializers.CharField()
    kind = serializers.CharField()
    superuser = serializers.BooleanField()
    scopes = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="Of the token; null for a session, which has all."
    )
    expires_at = serializers.DateTimeField(allow_null=True, help_text="Of the token.")
    memberships = MembershipRow(many=True)


# --- pages of lists --------------------------------------------------------------------------------------------------


class _Page(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True, help_text="`cursor` of the next page; null at the end.")


class ProjectPage(_Page):
    results = ProjectRow(many=True)


class RankingPage(_Page):
    results = RankingAnswer(many=True)


class PromptPage(_Page):
    results = PromptAnswer(many=True)


class SnapshotPage(_Page):
    results = SnapshotAnswer(many=True)
