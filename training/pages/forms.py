"""The form that starts a run: one field for each setting of its recipe, made from the declaration."""

from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings as django_settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotate.models import Project, Snapshot
from training import base_models
from training.models import Run
from training.pages.form_words import BASES, ROLES
from training.recipes.configs import PRESETS, FieldDescription, Preset, preset_named
from training.selectors import base_versions, reward_versions, runs_to_wait_for, train_pairs, trainable_snapshots
from training.services.placement import MOST
from training.services.run_settings import (
    EVALUATE_POLICY,
    EVALUATE_REWARD,
    INPUTS,
    Role,
    kind_of,
    offered_rewards,
    recipe_of_run,
    settable_fields,
)
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
    EVALUATE_REWARD: ("split", "max_length", "seed"),
    EVALUATE_POLICY: ("split", "max_prompts", "max_response_length", "temperature", "seed"),
    Run.Kind.SAMPLE: ("split", "max_prompts", "samples_per_prompt", "max_response_length", "temperature", "seed"),
}  # fmt: skip
HUB = "hub"
REWARD_ROLES = (Role.REWARD, Role.JUDGE)


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

    def __init__(self, *args: Any, project: Project, recipe: str = Run.Kind.REWARD, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.recipe, self.project = recipe, project
        snapshots = self.fields["snapshot"]
        assert isinstance(snapshots, SnapshotField)
        snapshots.queryset = trainable_snapshots(project)
        choices = self.fields["base_model"]
        assert isinstance(choices, forms.ChoiceField)
        choices.choices = base_model_choices(project, rewards=recipe == EVALUATE_REWARD)
        choices.label, choices.help_text = BASES.get(recipe, (choices.label, choices.help_text))
        self._choose("preset", [("", _("The defaults")), *((one.name, _of(one)) for one in PRESETS.get(recipe, ()))])
        self._choose("queue", [("", _("By rule")), *((name, name) for name in django_settings.RUN_QUEUES)])
        self.fields.update(input_fields(project, recipe))
        self.fields.update({f"config.{field.name}": form_field(field) for field in settable_fields(recipe)})

    def _choose(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def as_sent(self) -> "TrainForm":
        """The form as it would come in if nothing were changed."""
        sent = {name: self.get_initial_for_field(field, name) for name, field in self.fields.items()}
        if not sent.get("snapshot"):
            sent["snapshot"] = getattr(self.fields["snapshot"].queryset.first(), "pk", None)  # type: ignore[attr-defined]
        bases = base_model_choices(self.project, rewards=self.recipe == EVALUATE_REWARD)
        sent["base_model"] = sent.get("base_model") or first_choice(bases)
        data = {name: self.fields[name].prepare_value(value) for name, value in sent.items()}
        return TrainForm({name: value for name, value in data.items() if value is not None and value is not False},
                         project=self.project, recipe=self.recipe)  # fmt: skip

    def filled_in(self) -> "TrainForm":
        """The same form, with the settings of the chosen preset in place of those that were given."""
        chosen = preset_named(self.recipe, str(self.data.get("preset", "")))
        given = {name: self.data[name] for name in self.fields if name in self.data and not name.startswith("config.")}
        config = {f"config.{name}": value for name, value in (chosen.config if chosen else {}).items()}
        return TrainForm(project=self.project, recipe=self.recipe, initial=given | config)

    def source_fields(self) -> "FieldGroup":
        """What to train from."""
        names = ("snapshot", "base_model", "hub_model", *input_fields(self.project, self.recipe), "name")
        return FieldGroup([self[name] for name in names], list(map(str, self.non_field_errors())))

    def has_presets(self) -> bool:
        """Whether there is anything to fill in from."""
        return self.recipe in PRESETS

    def preset_fields(self) -> "FieldGroup":
        """What fills in the others."""
        return FieldGroup([self["preset"]], [])

    def place_fields(self) -> "FieldGroup":
        """Where it is carried out."""
        return FieldGroup([self[name] for name in ("queue", "processes", "nodes")], [])

    def main_fields(self) -> "FieldGroup":
        """The settings one should look at before pressing the button."""
        return FieldGroup([self[f"config.{name}"] for name in MAIN[self.recipe]], [])

    def advanced_fields(self) -> "FieldGroup":
        """Everything else, whose defaults are good."""
        others = [field.name for field in settable_fields(self.recipe) if field.name not in MAIN[self.recipe]]
        return FieldGroup([self[f"config.{name}"] for name in others], [])

    def clean(self) -> dict[str, Any]:
        given = super().clean() or self.cleaned_data
        for role in INPUTS.get(self.recipe, ()):
            # Nothing written would else be taken for no further model.
            if given.get(role) == HUB and not given[hub_field(role)].strip():
                self.add_error(hub_field(role), _("Write owner/name, as the hub has it."))
        return given

    def chosen(self) -> dict[str, Any]:
        """What services.runs.start_run takes; only settings that were given."""
        given = self.cleaned_data
        settings = {name.removeprefix("config."): value for name, value in given.items() if name.startswith("config.")}
        model = given["hub_model"].strip() if given["base_model"] == HUB else given["base_model"]
        return {
            "kind": kind_of(self.recipe),
            "snapshot": given["snapshot"],
            "base_model": model,
            "name": given["name"],
            "inputs": {role: self._named(role) for role in INPUTS.get(self.recipe, ())},
            "config": {name: value for name, value in settings.items() if value not in (None, "", [])},
            "queue": given["queue"],
            "processes": given["processes"] or 1,
            "nodes": given["nodes"] or 1,
        }

    def _named(self, role: str) -> str:
        """The model that was chosen for a role; of the hub, as it was written."""
        given = self.cleaned_data
        return str(given[hub_field(role)].strip() if given[role] == HUB else given[role])

    def add_refusal(self, message: str, fields: dict[str, str]) -> None:
        """Puts a service's refusal where it belongs."""
        for name, text in fields.items():
            place = hub_field(name) if self.cleaned_data.get(name) == HUB else name
            self.add_error(place if place in self.fields else None, text)
        if not fields:
            self.add_error(None, message)


def first_choice(choices: list[tuple[str, Any]]) -> str:
    """What a browser sends of choices, in groups or not, that nobody touched."""
    value, label = choices[0]
    return str(label[0][0] if isinstance(label, list) else value)


def hub_field(name: str) -> str:
    """The field for the hub's model, where a model's own says that it is one."""
    return "hub_model" if name == "base_model" else f"hub_{name}"


def input_fields(project: Project, recipe: str) -> dict[str, forms.Field]:
    """For each model besides the base: which one, and for a policy which one of the hub."""
    fields: dict[str, forms.Field] = {}
    for role in INPUTS.get(recipe, ()):
        fields[role] = _input_field(project, role, recipe)
        if role not in REWARD_ROLES:
            label = _("%(role)s of the hub") % {"role": Role(role).label}
            help_text = _("owner/name, if you chose the hub above.")
            fields[hub_field(role)] = forms.CharField(label=label, required=False, max_length=200, help_text=help_text)
    return fields


def _input_field(project: Project, role: str, recipe: str) -> forms.ChoiceField:
    """Which model, of the registry, of a run that goes on, or for a policy also a built-in one or one of the hub,
    stands in a role."""
    none, text = ROLES.get((role, recipe)) or ROLES[role]
    if role in REWARD_ROLES:
        groups = [group for group in model_choices(project, rewards=True) if group[1]]
    else:
        groups = base_model_choices(project)
    return forms.ChoiceField(label=Role(role).label, choices=[("", none), *groups], required=False, help_text=text)


def initial_of(run: Run) -> dict[str, Any]:
    """A form filled in as this run was started: its clone."""
    known = {field.name for field in settable_fields(recipe_of_run(run))}
    settings = {f"config.{name}": value for name, value in run.config.items() if name in known}
    models: dict[str, str] = {}
    for name, model in {"base_model": run.base_model, **{one.role: one.name for one in run.inputs.all()}}.items():
        is_hub = name not in REWARD_ROLES and base_models.HUB_ID.fullmatch(model)
        models |= {name: HUB, hub_field(name): model} if is_hub else {name: model}
    place = {"queue": run.queue, "processes": run.processes, "nodes": run.nodes}
    return {"snapshot": run.snapshot_id, "name": run.name, **place, **models, **settings}


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


def base_model_choices(project: Project, *, rewards: bool = False) -> list[tuple[Any, Any]]:
    """Models that this server knows, by where they are from: policies, or reward models."""
    elsewhere = (_("Elsewhere"), [(HUB, _("A model of the hub …"))])
    return [group for group in model_choices(project, rewards=rewards) if group[1]] + [elsewhere]


def model_choices(project: Project, *, rewards: bool) -> list[tuple[Any, list[tuple[str, Any]]]]:
    """Groups of models, some of them empty. Folders may hold either kind."""
    built_in = [(model.name, model.label) for model in base_models.BUILT_IN.values() if model.is_possible()]
    known = reward_versions(project) if rewards else base_versions(project)
    coming = [run for run in runs_to_wait_for(project) if (run.kind == Run.Kind.REWARD) == rewards]
    return [
        (_("Built in"), [] if rewards else built_in),
        (_("Folders of this server"), [(name, name) for name in base_models.local_folders()]),
        (_("Registry"), [(f"registry:{model.pk}", str(model)) for model in known]),
        (_("Waits for the run"), [(f"run:{run.pk}", str(run)) for run in coming]),
    ]
