"""The form that starts a run: one field for each setting of its recipe, made from the declaration."""

from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings as django_settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotate.models import Project, Snapshot
from training import base_models
from training.models import Run, RunInput
from training.recipes.configs import PRESETS, FieldDescription, Preset, preset_named
from training.selectors import base_versions, reward_versions, runs_to_wait_for, train_pairs, trainable_snapshots
from training.services.placement import MOST
from training.services.run_settings import INPUTS, offered_rewards, settable_fields
from training.services.runs import MAX_NAME_CHARACTERS

# What one should look at before pressing the button, by kind.
MAIN: dict[str, tuple[str, ...]] = {
    Run.Kind.REWARD: (
        "epochs", "batch_size", "learning_rate", "max_length", "lora_rank", "loss", "ties", "unranked", "strength",
        "ensemble", "seed",
    ),
    Run.Kind.SFT: ("epochs", "batch_size", "learning_rate", "max_length", "lora_rank", "seed"),
    Run.Kind.DPO: (
        "epochs", "batch_size", "learning_rate", "beta", "loss", "unranked", "max_length", "lora_rank", "seed",
    ),
    Run.Kind.PPO: (
        "reward", "max_steps", "batch_size", "samples_per_prompt", "max_response_length", "learning_rate", "advantage",
        "kl_coefficient", "entropy_coefficient", "inner_epochs", "lora_rank", "seed",
    ),
}  # fmt: skip
HUB = "hub"


@dataclass(frozen=True)
class FieldGroup:
    """A part of a form, in the shape that templates/_fields.html shows."""

    visible_fields: list[forms.BoundField]
    non_field_errors: list[str]

    def has_errors(self) -> bool:
        """Whether any of its fields is wrong."""
        return any(field.errors for field in self.visible_fields)


class SnapshotField(forms.ModelChoiceField):  # type: ignore[type-arg]  # generic in the stubs alone
    """Snapshots with what there is to know before training from one."""

    def label_from_instance(self, obj: Snapshot) -> str:
        words = _("%(name)s · %(pairs)d pairs to train from · %(hash)s")
        return words % {"name": obj.name, "pairs": train_pairs(obj), "hash": obj.sha256[:8]}


class TrainForm(forms.Form):
    """What a run trains from and how. Bounds are checked by the service, as for the API."""

    snapshot = SnapshotField(
        label=gettext_lazy("Snapshot"),
        queryset=Snapshot.objects.none(),
        empty_label=None,
        help_text=gettext_lazy("The frozen rankings to train from."),
    )
    base_model = forms.ChoiceField(
        label=gettext_lazy("Base model"), help_text=gettext_lazy("The language model that training starts from.")
    )
    hub_model = forms.CharField(
        label=gettext_lazy("Model of the hub"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("owner/name, if you chose the hub above."),
    )
    name = forms.CharField(
        label=gettext_lazy("Name of the run"),
        required=False,
        max_length=MAX_NAME_CHARACTERS,
        help_text=gettext_lazy("Named after the snapshot if left empty."),
    )

    preset = forms.ChoiceField(
        label=gettext_lazy("Begin with"),
        required=False,
        help_text=gettext_lazy("A named set of settings; “Fill in” puts it into the fields below."),
    )
    queue = forms.ChoiceField(
        label=gettext_lazy("Queue"),
        required=False,
        help_text=gettext_lazy("Kind of worker. By rule: the first whose workers have the memory."),
    )
    processes = forms.IntegerField(
        label=gettext_lazy("Processes"), required=False, initial=1, min_value=1, max_value=MOST,
        help_text=gettext_lazy("On each machine: one for each GPU, or to share the work of processors."),
    )  # fmt: skip
    nodes = forms.IntegerField(
        label=gettext_lazy("Machines"), required=False, initial=1, min_value=1, max_value=MOST,
        help_text=gettext_lazy("Workers of the queue that train it together."),
    )  # fmt: skip

    def __init__(self, *args: Any, project: Project, kind: str = Run.Kind.REWARD, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind, self.project = kind, project
        snapshots = self.fields["snapshot"]
        assert isinstance(snapshots, SnapshotField)
        snapshots.queryset = trainable_snapshots(project)
        choices = self.fields["base_model"]
        assert isinstance(choices, forms.ChoiceField)
        choices.choices = base_model_choices(project)
        self._choose("preset", [("", _("The defaults")), *((one.name, _of(one)) for one in PRESETS.get(kind, ()))])
        self._choose("queue", [("", _("By rule")), *((name, name) for name in django_settings.RUN_QUEUES)])
        self.fields.update({role: input_field(project, role) for role in INPUTS.get(kind, ())})
        self.fields.update({f"config.{field.name}": form_field(field) for field in settable_fields(kind)})

    def _choose(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def as_sent(self) -> "TrainForm":
        """The form as it would come in if nothing were changed."""
        sent = {name: self.get_initial_for_field(field, name) for name, field in self.fields.items()}
        if not sent.get("snapshot"):
            sent["snapshot"] = getattr(self.fields["snapshot"].queryset.first(), "pk", None)  # type: ignore[attr-defined]
        sent["base_model"] = sent.get("base_model") or first_choice(base_model_choices(self.project))
        data = {name: self.fields[name].prepare_value(value) for name, value in sent.items()}
        return TrainForm({name: value for name, value in data.items() if value is not None and value is not False},
                         project=self.project, kind=self.kind)  # fmt: skip

    def filled_in(self) -> "TrainForm":
        """The same form, with the settings of the chosen preset in place of those that were given."""
        chosen = preset_named(self.kind, str(self.data.get("preset", "")))
        given = {name: self.data[name] for name in self.fields if name in self.data and not name.startswith("config.")}
        config = {f"config.{name}": value for name, value in (chosen.config if chosen else {}).items()}
        return TrainForm(project=self.project, kind=self.kind, initial=given | config)

    def source_fields(self) -> "FieldGroup":
        """What to train from."""
        names = ("snapshot", "base_model", "hub_model", *INPUTS.get(self.kind, ()), "name")
        return FieldGroup([self[name] for name in names], list(map(str, self.non_field_errors())))

    def preset_fields(self) -> "FieldGroup":
        """What fills in the others."""
        return FieldGroup([self["preset"]], [])

    def place_fields(self) -> "FieldGroup":
        """Where it is carried out."""
        return FieldGroup([self[name] for name in ("queue", "processes", "nodes")], [])

    def main_fields(self) -> "FieldGroup":
        """The settings one should look at before pressing the button."""
        return FieldGroup([self[f"config.{name}"] for name in MAIN[self.kind]], [])

    def advanced_fields(self) -> "FieldGroup":
        """Everything else, whose defaults are good."""
        others = [field.name for field in settable_fields(self.kind) if field.name not in MAIN[self.kind]]
        return FieldGroup([self[f"config.{name}"] for name in others], [])

    def chosen(self) -> dict[str, Any]:
        """What services.runs.start_run takes; only settings that were given."""
        given = self.cleaned_data
        settings = {name.removeprefix("config."): value for name, value in given.items() if name.startswith("config.")}
        model = given["hub_model"].strip() if given["base_model"] == HUB else given["base_model"]
        return {
            "kind": self.kind,
            "snapshot": given["snapshot"],
            "base_model": model,
            "name": given["name"],
            "inputs": {role: given[role] for role in INPUTS.get(self.kind, ())},
            "config": {name: value for name, value in settings.items() if value not in (None, "", [])},
            "queue": given["queue"],
            "processes": given["processes"] or 1,
            "nodes": given["nodes"] or 1,
        }

    def add_refusal(self, message: str, fields: dict[str, str]) -> None:
        """Puts a service's refusal where it belongs."""
        for name, text in fields.items():
            place = "hub_model" if name == "base_model" and self.cleaned_data.get("base_model") == HUB else name
            self.add_error(place if place in self.fields else None, text)
        if not fields:
            self.add_error(None, message)


def first_choice(choices: list[tuple[str, Any]]) -> str:
    """What a browser sends of choices, in groups or not, that nobody touched."""
    value, label = choices[0]
    return str(label[0][0] if isinstance(label, list) else value)


def input_field(project: Project, role: str) -> forms.ChoiceField:
    """Which model of the registry, or of a run that goes on, is to score."""
    made = [(f"registry:{model.pk}", str(model)) for model in reward_versions(project)]
    coming = [(f"run:{run.pk}", str(run)) for run in runs_to_wait_for(project) if run.kind == Run.Kind.REWARD]
    none, text = {
        RunInput.Role.REWARD: (_("None: only the rewards below"), _("What the policy is rewarded by.")),
        RunInput.Role.JUDGE: (
            _("None given: one is trained at the start"),
            _(
                "A second reward model that nothing learns from: it tells whether the score can be believed. Without "
                "one the run trains its own, from rankings that the reward model did not learn from if there are any."
            ),
        ),
    }[RunInput.Role(role)]
    groups = [(_("Registry"), made), (_("Waits for the run"), coming)]
    choices = [("", none), *((label, found) for label, found in groups if found)]
    return forms.ChoiceField(label=RunInput.Role(role).label, choices=choices, required=False, help_text=text)


def initial_of(run: Run) -> dict[str, Any]:
    """A form filled in as this run was started: its clone."""
    known = {field.name for field in settable_fields(run.kind)}
    settings = {f"config.{name}": value for name, value in run.config.items() if name in known}
    is_hub = base_models.HUB_ID.fullmatch(run.base_model) is not None
    models = {one.role: one.name for one in run.inputs.all()}
    base = {"base_model": HUB, "hub_model": run.base_model} if is_hub else {"base_model": run.base_model}
    place = {"queue": run.queue, "processes": run.processes, "nodes": run.nodes}
    return {"snapshot": run.snapshot_id, "name": run.name, **base, **place, **models, **settings}


def _of(preset: Preset) -> str:
    """A preset in one line."""
    return f"{preset.label}: {preset.help}"


class LinesField(forms.CharField):
    """Texts, one a line."""

    widget = forms.Textarea

    def clean(self, value: Any) -> Any:
        return [line.strip() for line in super().clean(value).splitlines() if line.strip()]

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value


def form_field(field: FieldDescription) -> forms.Field:
    """A form field with its unit in the label and the setting's default filled in."""
    words = (
        field.name.replace("_", " ").replace("lora", "LoRA").replace("kl ", "KL ").replace("grad norm", "gradient norm")
    )
    common: dict[str, Any] = {
        "label": words[0].upper() + words[1:] + (f", {field.unit}" if field.unit not in ("", words) else ""),
        "required": False,
        "initial": field.default,
        "help_text": f"{field.help[0].upper()}{field.help[1:]}.",
    }
    if field.kind == "boolean":
        return forms.BooleanField(**common)
    if field.kind == "choice":
        return forms.ChoiceField(choices=[(choice, choice) for choice in field.choices], **common)
    if field.kind == "texts":
        common["help_text"] = _(
            "Checkable rewards, one a line: %(rewards)s. A *0.5 behind one is its weight; exact and numeric compare "
            "with the answer that comes with a prompt."
        ) % {"rewards": ", ".join(offered_rewards())}
        return LinesField(
            widget=forms.Textarea(attrs={"rows": 2, "autocomplete": "off", "spellcheck": "false"}), **common
        )
    # Read as text: the service says what is wrong with a number in the same words as for API and command line.
    mode = {"integer": "numeric", "number": "decimal"}.get(field.kind, "text")
    placeholder = _("not set") if field.default is None else str(field.default)
    return forms.CharField(
        widget=forms.TextInput(attrs={"inputmode": mode, "placeholder": placeholder, "autocomplete": "off"}), **common
    )


def base_model_choices(project: Project) -> list[tuple[str, Any]]:
    """Base models that this server knows, by where they are from."""
    built_in = [(model.name, model.label) for model in base_models.BUILT_IN.values() if model.is_possible()]
    folders = [(name, name) for name in base_models.local_folders()]
    registry = [(f"registry:{model.pk}", str(model)) for model in base_versions(project)]
    coming = [(f"run:{run.pk}", str(run)) for run in runs_to_wait_for(project) if run.kind != Run.Kind.REWARD]
    groups = [
        (_("Built in"), built_in),
        (_("Folders of this server"), folders),
        (_("Registry"), registry),
        (_("Waits for the run"), coming),
    ]
    elsewhere = (_("Elsewhere"), [(HUB, _("A model of the hub …"))])
    return [(label, choices) for label, choices in groups if choices] + [elsewhere]
