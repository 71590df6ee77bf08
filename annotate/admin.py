"""Administration. People, tokens, projects and memberships are written through services; history is only looked at."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from annotate.errors import Refused
from annotate.models import (
    ApiToken,
    Change,
    Demonstration,
    Entry,
    ImportBatch,
    Membership,
    Project,
    ProjectVersion,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Review,
    Role,
    Skip,
    Slot,
    Snapshot,
    TaskFlag,
    TaskResponse,
    User,
    Withdrawal,
)
from annotate.services.import_undo import undo_import
from annotate.services.project_rules import setting_faults
from annotate.services.projects import SETTINGS as PROJECT_SETTINGS
from annotate.services.projects import add_member, change_project, create_project
from annotate.services.queue import release_hold
from annotate.services.tokens import create_token, revoke_token, revoke_tokens_of


class NeverDeleted:
    """Mixin: other rows name these, for good."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnly(NeverDeleted):
    """Mixin: rows are looked at, never edited by hand; counting a million of them for a heading is not worth it."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def only_superusers(request: HttpRequest) -> bool:
    """Who may carry out the actions of read-only lists."""
    return bool(request.user.is_active and request.user.is_superuser)


# --- people ----------------------------------------------------------------------------------------------------------

admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]  # unfold is untyped
    pass


class NewPasswordForm(AdminPasswordChangeForm):  # type: ignore[misc]  # unfold is untyped
    """A password that somebody else sets, as a link does: sessions end by themselves, tokens would not."""

    def save(self, commit: bool = True) -> User:
        user: User = super().save(commit)
        revoke_tokens_of(user)
        return user


@admin.register(User)
class UserAdmin(NeverDeleted, DjangoUserAdmin, ModelAdmin):  # type: ignore[misc,type-arg]
    """Accounts. Nobody is deleted: deactivate them, and their rankings keep their name."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = NewPasswordForm
    list_display = ("username", "kind", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = ("kind", "is_active", "is_staff", "is_superuser")
    fieldsets = (*(DjangoUserAdmin.fieldsets or ()), ("Plackett", {"fields": ("kind", "single_key_shortcuts")}))


class TokenForm(forms.ModelForm):  # type: ignore[type-arg]
    """What a token is for and what it may do."""

    scopes = forms.MultipleChoiceField(choices=ApiToken.Scope.choices, widget=UnfoldAdminCheckboxSelectMultipleWidget)

    class Meta:
        model = ApiToken
        fields = ("user", "name", "scopes", "expires_at")


@admin.register(ApiToken)
class ApiTokenAdmin(NeverDeleted, ModelAdmin):  # type: ignore[misc]
    """Tokens. The secret is shown in the message after making one, and never again."""

    form = TokenForm
    list_display = ("prefix", "name", "user", "scopes", "created_at", "last_used_at", "expires_at", "revoked_at")
    list_filter = ("scopes",)
    list_select_related = ("user",)
    search_fields = ("name", "user__username", "prefix")
    autocomplete_fields = ("user",)
    actions = ("revoke",)

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        given = form.cleaned_data
        token, secret = create_token(
            user=given["user"], name=given["name"], scopes=given["scopes"], expires_at=given["expires_at"]
        )
        obj.pk = token.pk
        messages.warning(request, f"The token is {secret} . Copy it now: it cannot be shown again.")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return only_superusers(request)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        """Ends the chosen tokens at once."""
        for token in queryset:
            revoke_token(token=token)
        messages.success(request, "The tokens are revoked.")


# --- projects --------------------------------------------------------------------------------------------------------


class VersionInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = ProjectVersion
    fields = ("number", "allow_ties", "allow_partial", "strength", "rationale", "created_by", "created_at")
    readonly_fields = fields
    extra = 0


class ProjectForm(forms.ModelForm):  # type: ignore[type-arg]
    """Says what the service would refuse at its field."""

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        for name, message in setting_faults({name: given[name] for name in PROJECT_SETTINGS if name in given}).items():
            self.add_error(name, message)
        return given


@admin.register(Project)
class ProjectAdmin(NeverDeleted, ModelAdmin):  # type: ignore[misc]
    """Projects and their settings. Rules are versions: the set-up page and the API change them, here they are shown."""

    form = ProjectForm
    list_display = ("name", "slug", "overlap", "created_at", "archived_at")
    search_fields = ("name", "slug")
    inlines = (VersionInline,)

    def get_fields(self, request: HttpRequest, obj: Project | None = None) -> tuple[str, ...]:
        return ("slug", *PROJECT_SETTINGS)

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> tuple[str, ...]:
        return ("slug",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Project, form: Any, change: bool) -> None:
        given = {name: value for name, value in form.cleaned_data.items() if name in ("slug", *PROJECT_SETTINGS)}
        if change:
            change_project(project=obj, changed_by=_who(request), **given)
        else:
            obj.pk = create_project(created_by=_who(request), **given).pk


@admin.register(Membership)
class MembershipAdmin(ModelAdmin):  # type: ignore[misc]
    """Who may do what in which project."""

    list_display = ("user", "project", "role", "engineer", "weight")
    list_filter = ("project", "role", "engineer")
    list_select_related = ("user", "project")
    search_fields = ("user__username",)
    autocomplete_fields = ("user", "project")

    def get_readonly_fields(self, request: HttpRequest, obj: Membership | None = None) -> tuple[str, ...]:
        return ("user", "project") if obj else ()

    def save_model(self, request: HttpRequest, obj: Membership, form: Any, change: bool) -> None:
        membership = add_member(
            project=obj.project, user=obj.user, role=Role(obj.role), engineer=obj.engineer, weight=obj.weight
        )
        obj.pk = membership.pk


def _who(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


# --- what is ranked --------------------------------------------------------------------------------------------------


@admin.register(ImportBatch)
class ImportBatchAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "project", "format", "source", "created_by", "created_at", "finished_at", "undone_at")
    list_filter = ("project", "format")
    list_select_related = ("project", "created_by")
    actions = ("undo",)

    def has_undo_permission(self, request: HttpRequest) -> bool:
        return only_superusers(request)

    @admin.action(description="Undo, if nothing of it has been ranked", permissions=["undo"])
    def undo(self, request: HttpRequest, queryset: QuerySet[ImportBatch]) -> None:
        """Takes the chosen imports back."""
        for batch in queryset:
            try:
                undo_import(batch=batch, by=_who(request))
            except Refused as refused:
                messages.error(request, f"{batch}: {refused.message}")
            else:
                messages.success(request, f"{batch}: undone.")


class ResponseInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Response
    fields = ("key", "text", "model")
    extra = 0


@admin.register(Prompt)
class PromptAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "external_id", "project", "batch", "created_at", "withdrawn_at")
    list_filter = ("project",)
    list_select_related = ("project", "batch")
    search_fields = ("=external_id",)
    inlines = (ResponseInline,)


@admin.register(Response)
class ResponseAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "prompt_id", "key", "model", "withdrawn_at")


@admin.register(Demonstration)
class DemonstrationAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "project", "prompt_id", "created_at", "withdrawn_at")
    list_filter = ("project",)
    list_select_related = ("project",)


# --- tasks -----------------------------------------------------------------------------------------------------------


class TaskResponseInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = TaskResponse
    fields = ("response",)
    extra = 0


class SlotInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Slot
    fk_name = "task"
    fields = ("number", "state", "holder", "expires_at", "current_ranking")
    extra = 0


@admin.register(RankingTask)
class RankingTaskAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "project", "kind", "state", "overlap", "priority", "created_at")
    list_filter = ("project", "state", "kind", "priority")
    list_select_related = ("project",)
    inlines = (TaskResponseInline, SlotInline)
    actions = ("release",)

    def has_release_permission(self, request: HttpRequest) -> bool:
        return only_superusers(request)

    @admin.action(description="Back into the queue", permissions=["release"])
    def release(self, request: HttpRequest, queryset: QuerySet[RankingTask]) -> None:
        """Ends the hold on the chosen tasks."""
        held = queryset.filter(state=RankingTask.State.HELD)
        for task in held:
            release_hold(task=task)
        messages.success(request, "The held tasks among them are in the queue again.")


@admin.register(Skip)
class SkipAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("task", "annotator", "reason", "note", "created_at")
    list_filter = ("project", "reason")
    list_select_related = ("task", "annotator")


@admin.register(TaskFlag)
class TaskFlagAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("task", "annotator", "kind", "note", "created_at", "settled_at")
    list_filter = ("kind",)
    list_select_related = ("task", "annotator")


# --- history ---------------------------------------------------------------------------------------------------------


class EntryInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Entry
    fk_name = "ranking"
    fields = ("response", "tier")
    extra = 0


@admin.register(Ranking)
class RankingAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "project", "task", "annotator", "revision", "counted", "source", "submitted_at")
    list_filter = ("project", "source", "counted")
    list_select_related = ("project", "task", "annotator")
    search_fields = ("=annotator__username",)
    inlines = (EntryInline,)


@admin.register(Review)
class ReviewAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "ranking", "reviewer", "verdict", "note", "created_at", "withdrawn_at")
    list_filter = ("ranking__project", "verdict")
    list_select_related = ("ranking", "reviewer")
    search_fields = ("=reviewer__username",)


@admin.register(Withdrawal)
class WithdrawalAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    """The log of what was withdrawn; the pages, the API and a command withdraw."""

    list_display = ("id", "project", "kind", "annotator", "by", "reason", "counts", "started_at", "finished_at")
    list_filter = ("project", "kind")
    list_select_related = ("project", "annotator", "by")
    search_fields = ("=annotator__username", "=by__username", "reason")


@admin.register(Change)
class ChangeAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("project", "number", "kind", "ranking", "skip", "created_at")
    list_filter = ("project", "kind")
    list_select_related = ("project", "ranking", "skip")


@admin.register(ProjectVersion)
class ProjectVersionAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("project", "number", "created_by", "created_at")
    list_filter = ("project",)
    list_select_related = ("project", "created_by")


@admin.register(Snapshot)
class SnapshotAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "name", "project", "state", "sha256", "size_bytes", "created_by", "created_at")
    list_filter = ("project", "state")
    list_select_related = ("project", "created_by")
