"""The form that starts several stages at once."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from annotate.errors import Invalid
from annotate.models import Project, Snapshot
from annotate.pages.access import page, visitor
from annotate.selectors.projects import get_project_for
from training.models import Run
from training.pages.forms import HUB, SnapshotField, base_model_choices
from training.selectors import trainable_snapshots
from training.services.pipelines import STAGES, start_pipeline

USUAL = (Run.Kind.SFT, Run.Kind.REWARD, Run.Kind.PPO, Run.Kind.EVALUATE)
LORA_RANK = 16


class PipelineForm(forms.Form):
    """What all stages have in common; each has the defaults of its own for the rest."""

    snapshot = SnapshotField(
        label=gettext_lazy("Snapshot"), queryset=Snapshot.objects.none(), empty_label=None,
        help_text=gettext_lazy("All stages train from these frozen records."),
    )  # fmt: skip
    base_model = forms.ChoiceField(
        label=gettext_lazy("Base model"), help_text=gettext_lazy("The language model that the first stage starts from.")
    )
    hub_model = forms.CharField(
        label=gettext_lazy("Model of the hub"), required=False, max_length=200,
        help_text=gettext_lazy("owner/name, if you chose the hub above."),
    )  # fmt: skip
    stages = forms.MultipleChoiceField(
        label=gettext_lazy("Stages"), choices=[(kind.value, kind.label) for kind in STAGES], initial=USUAL,
        widget=forms.CheckboxSelectMultiple, required=False,
        help_text=gettext_lazy(
            "Each begins when those that it builds on have succeeded: SFT from the base model, the reward model and "
            "DPO from SFT, PPO from SFT and the reward model, the evaluation of DPO's and PPO's policy beside SFT."
        ),
    )  # fmt: skip
    lora_rank = forms.CharField(
        label=gettext_lazy("LoRA rank"), required=False, initial=LORA_RANK,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
        help_text=gettext_lazy("Of every stage that trains; 0 trains all weights."),
    )  # fmt: skip
    max_steps = forms.CharField(
        label=gettext_lazy("Max steps"), required=False,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
        help_text=gettext_lazy("Of every stage that trains, to try it out; one epoch if this is left empty."),
    )  # fmt: skip

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        snapshots, choices = self.fields["snapshot"], self.fields["base_model"]
        assert isinstance(snapshots, SnapshotField) and isinstance(choices, forms.ChoiceField)
        snapshots.queryset = trainable_snapshots(project)
        choices.choices = base_model_choices(project)

    def chosen(self) -> dict[str, Any]:
        """What services.pipelines.start_pipeline takes."""
        given = self.cleaned_data
        shared = {name: given[name] for name in ("lora_rank", "max_steps") if given[name]}
        model = given["hub_model"].strip() if given["base_model"] == HUB else given["base_model"]
        return {
            "snapshot": given["snapshot"],
            "base_model": model,
            "stages": given["stages"],
            "config": {stage: shared for stage in _trained(given["stages"]) if shared},
        }

    def add_refusal(self, refused: Invalid) -> None:
        """Puts a service's refusal where it belongs; what concerns one stage says which."""
        for name, text in refused.fields.items():
            stage, _dot, setting = name.partition(".config.")
            place = "hub_model" if name == "base_model" and self.cleaned_data.get("base_model") == HUB else name
            if setting in self.fields:
                self.add_error(setting, f"{Run.Kind(stage).label}: {text}")
            else:
                is_ours = place in self.fields
                self.add_error(place if is_ours else None, text if is_ours else f"{name}: {text}")


def _trained(stages: list[str]) -> set[str]:
    """The stages that train something; with an evaluation, which has a judge made, the reward model among them."""
    return {Run.Kind.REWARD.value if stage == Run.Kind.EVALUATE else stage for stage in stages}


@require_http_methods(["GET", "HEAD", "POST"])
@page
def pipeline(request: HttpRequest, slug: str) -> HttpResponse:
    """The form; a good one leads to the page of the first stage, which shows them all."""
    project = get_project_for(visitor(request), slug, engineer=True)
    initial = {"snapshot": request.GET.get("snapshot")}
    form = PipelineForm(request.POST if request.method == "POST" else None, project=project, initial=initial)
    if form.is_bound and form.is_valid():
        try:
            return redirect(start_pipeline(project=project, started_by=visitor(request), **form.chosen())[0])
        except Invalid as refused:
            form.add_refusal(refused)
    context = {
        "project": project,
        "form": form,
        "has_snapshots": trainable_snapshots(project).exists(),
        "title": _("Train in stages"),
    }
    return render(request, "training/pipeline.html", context, status=422 if form.errors else 200)
