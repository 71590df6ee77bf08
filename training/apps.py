"""App configuration."""

from django.apps import AppConfig

from annotate.selectors.dependents import tells_of_models


class TrainingConfig(AppConfig):
    """Runs and models."""

    name = "training"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Lets annotate, which knows nothing of training, say which models a withdrawal reaches."""
        from training.selectors import models_from_snapshots  # models are loaded only now

        tells_of_models(models_from_snapshots)
