"""Forms of the pages."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from annotate.models import RankingTask, User
from annotate.services.snapshots import SnapshotFilters

_DEFAULTS = SnapshotFilters()
_ANNOTATORS = [
    (User.Kind.HUMAN, _("people")),
    (User.Kind.EXAMPLE, _("the demo's example rankings")),
    (User.Kind.IMPORTED, _("imported data")),
    (User.Kind.MACHINE, _("machines: model judges")),
]
_KINDS = [
    (RankingTask.Kind.NORMAL, _("normal tasks")),
    (RankingTask.Kind.GOLD, _("gold tasks, whose answer is known")),
    (RankingTask.Kind.REPEAT, _("repeats, shown twice to one person")),
]


class FreezeForm(forms.Form):
    """What a new snapshot is called and what it takes in; the defaults are those of the service."""

    name = forms.CharField(
        label=_("Name"), max_length=120, help_text=_("For people; the content is known by its hash.")
    )
    annotator_kinds = forms.MultipleChoiceField(
        label=_("Rankings by"),
        choices=_ANNOTATORS,
        initial=_DEFAULTS.annotator_kinds,
        widget=forms.CheckboxSelectMultiple,
    )
    kinds = forms.MultipleChoiceField(
        label=_("From"), choices=_KINDS, initial=_DEFAULTS.kinds, widget=forms.CheckboxSelectMultiple
    )
    extras = forms.BooleanField(
        label=_("Also rankings beyond the overlap"), required=False, initial=not _DEFAULTS.counted
    )
    reviewed = forms.BooleanField(
        label=_("Only rankings that were accepted in review"), required=False, initial=_DEFAULTS.reviewed
    )
    demonstrations = forms.BooleanField(
        label=_("Also demonstrations, for SFT"), required=False, initial=_DEFAULTS.demonstrations
    )
    prompts = forms.BooleanField(label=_("Also bare prompts, for PPO"), required=False, initial=_DEFAULTS.prompts)

    def filters(self) -> dict[str, Any]:
        """What services.snapshots.freeze_snapshot takes."""
        given = self.cleaned_data
        chosen = {name: given[name] for name in ("annotator_kinds", "kinds", "reviewed", "demonstrations", "prompts")}
        return chosen | {"counted": not given["extras"]}
