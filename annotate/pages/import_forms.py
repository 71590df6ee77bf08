"""The form under a preview: what columns mean, and how the tasks are to be ranked."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from annotate.interchange import FORMATS
from annotate.interchange.mapping import NOTHING
from annotate.models import ImportUpload, RankingTask

#: As many columns as a page asks about; beyond that the command takes them.
MAX_COLUMNS = 60
_KEPT = [("", _("its own name, or kept as it is")), (NOTHING, _("left out"))]


class LookForm(forms.Form):
    """One select for each column, in the order of the file, before what every import asks."""

    overlap = forms.IntegerField(
        label=_("Annotators for each task"),
        required=False,
        min_value=0,
        max_value=50,
        help_text=_(
            "Empty: what the project says for tasks that come without a ranking, none for those that bring one."
        ),
    )
    priority = forms.TypedChoiceField(
        label=_("Priority"),
        required=False,
        coerce=int,
        empty_value=None,
        initial=RankingTask.Priority.NORMAL,
        choices=[(0, _("urgent")), (1, _("high")), (2, _("normal")), (3, _("low"))],
    )
    strict = forms.BooleanField(label=_("Refuse everything if any record has a fault"), required=False)

    def __init__(self, upload: ImportUpload, *given: Any) -> None:
        super().__init__(*given)
        self._columns = upload.columns[:MAX_COLUMNS]
        fields = [(name, name) for name in FORMATS[upload.format].fields]
        for number, column in enumerate(self._columns):
            chosen = upload.mapping.get(column, "")
            self.fields[f"column_{number}"] = forms.ChoiceField(
                label=column, required=False, choices=[*_KEPT, *fields], initial=chosen
            )

    def columns(self) -> list[forms.BoundField]:
        """The selects, for the template."""
        return [self[f"column_{number}"] for number in range(len(self._columns))]

    def mapping(self) -> dict[str, str]:
        """Column → field, of the columns that were given one."""
        chosen = {column: self.cleaned_data[f"column_{number}"] for number, column in enumerate(self._columns)}
        return {column: field for column, field in chosen.items() if field}

    def options(self) -> dict[str, Any]:
        """What services.imports takes besides the file."""
        priority = self.cleaned_data["priority"]
        return {
            "overlap": self.cleaned_data["overlap"],
            "priority": RankingTask.Priority.NORMAL if priority is None else priority,
            "strict": self.cleaned_data["strict"],
        }
