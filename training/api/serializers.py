"""The shapes of runs and models in the API. What a setting may be is the recipe's business: see recipes/configs.py."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from annotate.api.queries import MAX_ID
from annotate.api.shapes.base import Shape
from training.models import ModelVersion, Run, RunInput
from training.recipes.configs import RECIPES, FieldDescription
from training.selectors_use import cost_of, device_hours, members_of
from training.services.placement import MOST
from training.services.run_settings import settable_fields
from training.services.runs import MAX_NAME_CHARACTERS

MAX_STEP = 2**31 - 1
TYPES = {"integer": "integer", "number": "number", "boolean": "boolean", "choice": "string", "text": "string",
         "texts": "array"}  # fmt: skip


def settings_schema(recipe: str) -> dict[str, Any]:
    """The JSON schema of the settings that a person may give, for the OpenAPI document."""
    return {
        "type": "object",
        "title": recipe,
        "properties": {field.name: _property(field) for field in settable_fields(recipe)},
        "additionalProperties": False,
    }


def _property(field: FieldDescription) -> dict[str, Any]:
    """One setting in the words of OpenAPI 3.0."""
    bounds = {"minimum": field.minimum, "maximum": field.maximum}
    if field.above is not None:
        bounds = {"minimum": field.above, "exclusiveMinimum": True, "maximum": field.maximum}
    return {
        "type": TYPES[field.kind],
        "nullable": field.optional,
        "description": f"{field.help} ({field.unit})" if field.unit else field.help,
        "default": field.default,
        **({"enum": list(field.choices)} if field.choices else {}),
        **({"items": {"type": "string"}} if field.kind == "texts" else {}),
        **{name: bound for name, bound in bounds.items() if bound is not None},
    }


@extend_schema_field({"anyOf": [settings_schema(recipe) for recipe in RECIPES]})
class SettingsField(serializers.DictField):
    """Settings of the run's recipe by name; those not given take their defaults."""


def _named_model(about: str) -> serializers.CharField:
    return serializers.CharField(required=False, allow_blank=True, default="", max_length=300, help_text=about)


class StartShape(Shape):
    """A run to start."""

    project = serializers.SlugField(max_length=60, help_text="Slug.")
    kind = serializers.ChoiceField(choices=Run.Kind.choices, default=Run.Kind.REWARD)
    snapshot = serializers.IntegerField(min_value=1, max_value=MAX_ID)
    base_model = serializers.CharField(
        max_length=300,
        help_text="smollm2, tiny, registry:ID, run:ID (the model that a run makes, which is waited for), a folder of "
        "the models folder, or owner/name on the hub.",
    )
    reward_model = _named_model("For PPO, sampling and comparing policies, named as base models are.")
    judge = _named_model(
        "For PPO and comparing policies: a reward model that nothing learns from. Without one PPO makes its own."
    )
    baseline = _named_model(
        "For an evaluation: the policy that base_model is compared with. Without one base_model is a reward model, and "
        "is scored on the snapshot's rankings."
    )
    model_2 = _named_model("For sampling: a further policy.")
    model_3 = _named_model("For sampling: a further policy.")
    model_4 = _named_model("For sampling: a further policy.")
    config = SettingsField(required=False, default=dict)
    preset = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=40,
        help_text="A named set of settings, see /runs/presets/; what `config` gives goes before it.",
    )  # fmt: skip
    name = serializers.CharField(required=False, allow_blank=True, default="", max_length=MAX_NAME_CHARACTERS)
    queue = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=30,
        help_text="Kind of worker; empty: by rule, the first whose workers have the memory.",
    )  # fmt: skip
    processes = serializers.IntegerField(
        required=False, default=1, min_value=1, max_value=MOST, help_text="On each machine, one for each GPU."
    )
    nodes = serializers.IntegerField(
        required=False, default=1, min_value=1, max_value=MOST, help_text="Machines that train it together."
    )


class AccuracyAnswer(serializers.Serializer[Any]):
    """A share of held-out pairs, with its 95 % interval."""

    value = serializers.FloatField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    pairs = serializers.IntegerField()
    prompts = serializers.IntegerField()


class InputAnswer(serializers.Serializer[Any]):
    """A model that the run reads besides its base."""

    role = serializers.ChoiceField(choices=RunInput.Role.choices)
    name = serializers.CharField(help_text="As it was named.")
    model = serializers.IntegerField(source="version_id", allow_null=True, help_text="Of the registry.")


class CostAnswer(serializers.Serializer[Any]):
    """An amount of money, to the hundredth."""

    amount = serializers.DecimalField(max_digits=20, decimal_places=2)
    currency = serializers.CharField()


class MemberAnswer(serializers.Serializer[Any]):
    """A machine that trains the run together with others, in its last attempt."""

    rank = serializers.IntegerField()
    worker = serializers.CharField()
    host = serializers.CharField()
    processes = serializers.IntegerField(source="run.processes", help_text="Of the run, on this machine.")
    joined_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    outcome = serializers.CharField(help_text="done, lost; empty while it is at work.")


class RunRow(serializers.ModelSerializer[Run]):
    """A run in a list."""

    project = serializers.SlugField(source="project.slug")
    started_by = serializers.CharField(source="started_by.username", allow_null=True, default=None)
    snapshot = serializers.IntegerField(source="snapshot_id", allow_null=True)
    model = serializers.IntegerField(source="model.pk", allow_null=True, default=None, help_text="What it made.")
    device_hours = serializers.SerializerMethodField()
    cost = serializers.SerializerMethodField()

    def get_device_hours(self, run: Run) -> float:
        """The time of its attempts, times processes, times machines; of a living run until now."""
        return round(device_hours(run), 4)

    @extend_schema_field(CostAnswer(allow_null=True, help_text="Of those hours; null where no price is set."))
    def get_cost(self, run: Run) -> Any:
        cost = cost_of(device_hours(run))
        return None if cost is None else CostAnswer(cost).data

    class Meta:
        model = Run
        fields: tuple[str, ...] = (
            "id",
            "project",
            "name",
            "kind",
            "state",
            "suspect",
            "snapshot",
            "base_model",
            "step",
            "total_steps",
            "reason",
            "model",
            "started_by",
            "created_at",
            "started_at",
            "finished_at",
            "device_hours",
            "cost",
        )


class AttemptAnswer(serializers.Serializer[Any]):
    """One worker's try."""

    number = serializers.IntegerField()
    worker = serializers.CharField()
    from_step = serializers.IntegerField(allow_null=True)
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    outcome = serializers.CharField(help_text="succeeded, failed, cancelled, released, lost; empty while it goes on.")


class RunDetails(RunRow):
    """The columns of one run."""

    config = SettingsField()
    inputs = InputAnswer(many=True)
    attempts = AttemptAnswer(many=True)
    members = serializers.SerializerMethodField()
    exit = serializers.DictField(allow_null=True)
    report = serializers.DictField(allow_null=True)

    @extend_schema_field(MemberAnswer(many=True))
    def get_members(self, run: Run) -> Any:
        return MemberAnswer(members_of(run), many=True).data

    class Meta(RunRow.Meta):
        fields = (
            *RunRow.Meta.fields,
            "cloned_from",
            "config",
            "inputs",
            "queue",
            "processes",
            "nodes",
            "attempt",
            "attempts",
            "members",
            "worker",
            "heartbeat_at",
            "cancel_requested_at",
            "log_tail",
            "exit",
            "report",
        )


class RunAnswer(RunDetails):
    """All there is to know of a run but its measurements."""

    waits_for = serializers.IntegerField(source="parent_id", allow_null=True, help_text="The run that it builds on.")
    seconds_left = serializers.FloatField(allow_null=True, help_text="An estimate from the pace of the last steps.")

    class Meta(RunDetails.Meta):
        fields = (*RunDetails.Meta.fields, "waits_for", "seconds_left")


class StepAnswer(serializers.Serializer[Any]):
    """What was measured at a step; null for what was not finite."""

    step = serializers.IntegerField()
    attempt = serializers.IntegerField()
    values = serializers.DictField(child=serializers.FloatField(allow_null=True))


class MetricsAnswer(serializers.Serializer[Any]):
    """Measurements after a step, in order."""

    state = serializers.ChoiceField(choices=Run.State.choices)
    attempt = serializers.IntegerField(help_text="Send it with the next request.")
    discard_after = serializers.IntegerField(
        allow_null=True, help_text="Rows beyond this step that you have were cut when the run was resumed."
    )
    more = serializers.BooleanField(help_text="There are further rows: ask again from the last step here.")
    metrics = StepAnswer(many=True)


class ModelDetails(serializers.ModelSerializer[ModelVersion]):
    """The columns of a model."""

    project = serializers.SlugField(source="project.slug")
    snapshot = serializers.IntegerField(source="run.snapshot_id", allow_null=True, default=None)
    base_model = serializers.CharField(source="run.base_model", allow_null=True, default=None)

    class Meta:
        model = ModelVersion
        fields: tuple[str, ...] = (
            "id",
            "project",
            "name",
            "kind",
            "stage",
            "run",
            "parent",
            "snapshot",
            "base_model",
            "size_bytes",
            "shared",
            "created_at",
            "deleted_at",
        )


class ModelRow(ModelDetails):
    """A model in the registry."""

    withdrawn = serializers.BooleanField(
        help_text="Trained, itself or through a parent, from a snapshot that was withdrawn since."
    )
    accuracy = AccuracyAnswer(allow_null=True, help_text="On held-out pairs.")
    length_baseline = AccuracyAnswer(allow_null=True, help_text="`The longer response wins` on the same pairs.")

    class Meta(ModelDetails.Meta):
        fields = (*ModelDetails.Meta.fields, "withdrawn", "accuracy", "length_baseline")


class ModelAnswer(ModelRow):
    """A model with its report and the models it descends from, the nearest first."""

    lineage = serializers.ListField(child=serializers.IntegerField())
    report = serializers.DictField()

    class Meta(ModelRow.Meta):
        fields = (*ModelRow.Meta.fields, "lineage", "report")


class RunPage(serializers.Serializer[Any]):
    results = RunRow(many=True)
    next = serializers.CharField(allow_null=True)


class ModelPage(serializers.Serializer[Any]):
    results = ModelRow(many=True)
    next = serializers.CharField(allow_null=True)
