"""Forms of the pages."""

from django import forms


class FreezeForm(forms.Form):
    """A name for a new snapshot."""

    name = forms.CharField(max_length=120, label="Name", help_text="For people; the content is known by its hash.")
