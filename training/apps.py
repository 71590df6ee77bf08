"""App configuration."""

from django.apps import AppConfig


class TrainingConfig(AppConfig):
    """Runs and models."""

    name = "training"
    default_auto_field = "django.db.models.BigAutoField"
