"""App configuration."""

from django.apps import AppConfig


class AnnotateConfig(AppConfig):
    """The record of human judgement."""

    name = "annotate"
    default_auto_field = "django.db.models.BigAutoField"
