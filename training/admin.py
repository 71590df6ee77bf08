"""Runs and models in the administration: read-only, because what happened stays as it was; actions call services."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from annotate.errors import Refused
from training.models import ModelVersion, Retention, Run, RunAttempt
from training.services.runs import cancel_run, resume_run


class ReadOnly:
    """Mixin: rows are looked at, never edited by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class AttemptInline(ReadOnly, TabularInline):  # type: ignore[misc]  # unfold is untyped
    model = RunAttempt
    fields = ("number", "worker", "host", "from_step", "started_at", "ended_at", "outcome")
    extra = 0


@admin.register(Run)
class RunAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "name", "kind", "project", "state", "step", "total_steps", "worker", "created_at")
    list_filter = ("state", "kind", "project")
    search_fields = ("name",)
    list_select_related = ("project",)
    inlines = (AttemptInline,)
    actions = ("cancel", "resume")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    @admin.action(description="Cancel", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        """Cancels the chosen runs."""
        self._each(request, queryset, cancel_run, "cancelled")

    @admin.action(description="Resume", permissions=["cancel"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        """Queues the chosen runs again."""
        self._each(request, queryset, resume_run, "queued again")

    def _each(self, request: HttpRequest, queryset: QuerySet[Run], act: Any, done: str) -> None:
        for run in queryset:
            try:
                act(run)
            except Refused as refused:
                messages.error(request, f"{run}: {refused.message}")
            else:
                messages.success(request, f"{run}: {done}.")


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "name", "kind", "project", "stage", "run", "size_bytes", "created_at")
    list_filter = ("kind", "project", "stage")
    search_fields = ("name",)
    list_select_related = ("project", "run")


@admin.register(Retention)
class RetentionAdmin(ModelAdmin):  # type: ignore[misc]
    """What a project keeps; a rule is a setting, not a record of what happened, so it is edited here."""

    list_display = ("project", "kept", "days", "resume_days")
    list_select_related = ("project",)
