"""The form of a try: models, a conversation, and a few settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from annotate.models import Project, Prompt
from annotate.selectors.task_lists import beginning_of
from training import base_models
from training.models import RunInput, Try
from training.pages.forms import HUB, base_model_choices, model_choices
from training.pages.older import MAX_ID
from training.selectors_tries import group_of, offered_prompts
from training.services.tries import LONGEST_RESPONSE, MOST_MESSAGES, MOST_SAMPLES, Wish

ROLES = {
    "system": pgettext_lazy("role in a conversation", "System"),
    "user": pgettext_lazy("role in a conversation", "User"),
    "assistant": pgettext_lazy("role in a conversation", "Assistant"),
}
Turn = Mapping[str, str]
EMPTY: tuple[Turn, ...] = ({"role": "system", "content": ""}, {"role": "user", "content": ""})


class TryForm(forms.Form):
    """Everything but the conversation, which is a list; see `turns`. Bounds are checked by the service."""

    model = forms.ChoiceField(label=gettext_lazy("Model"))
    hub_model = forms.CharField(label=gettext_lazy("Model of the hub"), required=False, max_length=200)
    model_2 = forms.ChoiceField(
        label=gettext_lazy("Beside it"), required=False, help_text=gettext_lazy("A second model, to compare.")
    )
    hub_model_2 = forms.CharField(label=gettext_lazy("Second model of the hub"), required=False, max_length=200)
    samples = forms.TypedChoiceField(
        label=gettext_lazy("Responses of each"), coerce=int, initial=1,
        choices=[(number, str(number)) for number in range(1, MOST_SAMPLES + 1)],
    )  # fmt: skip
    temperature = forms.FloatField(
        label=gettext_lazy("Temperature"), initial=1.0, localize=True,
        help_text=gettext_lazy("Lower is steadier, higher more varied."),
    )  # fmt: skip
    max_response_length = forms.IntegerField(
        label=gettext_lazy("Longest response, tokens"), initial=256, min_value=1, max_value=LONGEST_RESPONSE
    )
    reward_model = forms.ChoiceField(
        label=gettext_lazy("Scored by"), required=False, help_text=gettext_lazy("A reward model.")
    )
    shows_thinking = forms.BooleanField(label=gettext_lazy("Show thinking"), required=False)
    prompt = forms.IntegerField(required=False, widget=forms.HiddenInput, min_value=1, max_value=MAX_ID)

    def __init__(self, *args: Any, project: Project, turns: Sequence[Turn] = EMPTY, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project
        self.turns = turns_in(self.data) if self.is_bound and isinstance(self.data, QueryDict) else list(turns)
        self.turn_errors: list[str] = []
        none = ("", _("None"))
        policies, rewards = base_model_choices(project), model_choices(project, rewards=True)
        self._choose("model", policies)
        self._choose("model_2", [none, *policies])
        self._choose("reward_model", [none, *(group for group in rewards if group[1])])

    def _choose(self, name: str, choices: list[Any]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    @property
    def roles(self) -> Mapping[str, Any]:
        """What a message may be, and how that is called."""
        return ROLES

    @property
    def offered(self) -> list[tuple[int, str]]:
        """Prompts of the project that can be taken, by their beginnings."""
        return [(prompt.pk, beginning_of(prompt)) for prompt in offered_prompts(self.project)]

    def model_fields(self) -> list[forms.BoundField]:
        """Who answers, and who scores."""
        return [self[name] for name in ("model", "hub_model", "model_2", "hub_model_2", "reward_model")]

    def setting_fields(self) -> list[forms.BoundField]:
        """How they answer."""
        return [self[name] for name in ("samples", "temperature", "max_response_length", "shows_thinking")]

    def wish(self) -> Wish:
        """What services.tries.start_try takes."""
        given, messages = self.cleaned_data, [turn for turn in self.turns if turn["content"].strip()]
        return Wish(
            model=given["hub_model"].strip() if given["model"] == HUB else given["model"],
            model_2=given["hub_model_2"].strip() if given["model_2"] == HUB else given["model_2"],
            reward_model=given["reward_model"],
            messages=messages,
            split_group=group_of(self.project, given["prompt"], messages),
            **{name: given[name] for name in ("samples", "temperature", "max_response_length", "shows_thinking")},
        )

    def add_refusal(self, message: str, fields: Mapping[str, str]) -> None:
        """Puts a service's refusal where it belongs."""
        for name, text in fields.items():
            place = f"hub_{name}" if self.cleaned_data.get(name) == HUB else name
            if place == "messages":
                self.turn_errors.append(text)
            else:
                self.add_error(place if place in self.fields else None, text)
        if not fields:
            self.add_error(None, message)


def turns_in(data: QueryDict) -> list[Turn]:
    """The conversation of a form that was sent."""
    pairs = zip(data.getlist("role"), data.getlist("content"), strict=False)
    turns: list[Turn] = [{"role": role, "content": content.replace("\r\n", "\n")} for role, content in pairs]
    return turns[: MOST_MESSAGES + 1] or list(EMPTY)


def turns_of(prompt: Prompt) -> list[Turn]:
    """A prompt of the project as the form shows it."""
    return [{"role": str(one["role"]), "content": str(one["content"])} for one in prompt.messages]


def initial_of_try(tried: Try) -> dict[str, Any]:
    """The form as this try was begun."""
    run = tried.run
    named = {one.role: one.name for one in run.inputs.all()}
    wanted = {"model": run.base_model, "model_2": named.get(RunInput.Role.MODEL_2, "")}
    hubs = {f"hub_{name}": value for name, value in wanted.items() if base_models.HUB_ID.fullmatch(value)}
    return {
        **{name: HUB if f"hub_{name}" in hubs else value for name, value in wanted.items()},
        **hubs,
        "reward_model": named.get(RunInput.Role.REWARD, ""),
        "samples": run.config["samples_per_prompt"],
        **{name: run.config[name] for name in ("temperature", "max_response_length")},
        "shows_thinking": tried.shows_thinking,
    }
