"""Making projects, their rules and their members."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid
from annotate.models import Membership, Project, ProjectVersion, Role, User
from annotate.services.project_rules import normal_rules, rule_faults, rules_of, setting_faults

#: What a manager sets of a project besides its rules.
SETTINGS = ("name", "description", "overlap", "lease_seconds", "open_lease_limit", "skip_limit")


@transaction.atomic
def create_project(
    *, slug: str, name: str, created_by: User | None = None, rules: dict[str, Any] | None = None, **fields: Any
) -> Project:
    """Writes the project, version 1 of its rules, and its maker as manager and engineer.

    Args:
        rules: fields of ProjectVersion (guidelines, allow_ties, …); defaults where absent.
        fields: further fields of Project (overlap, lease_seconds, …).

    Raises:
        Invalid: a rule or a setting that cannot be.
        django.core.exceptions.ValidationError: a slug that is taken or is none.
    """
    wanted = normal_rules(rules or {})
    _check(rules=wanted, settings={"name": name, **fields})
    project = Project(slug=slug, name=name, **fields)
    project.full_clean()
    project.save()
    ProjectVersion.objects.create(project=project, number=1, created_by=created_by, **wanted)
    if created_by is not None:
        add_member(project=project, user=created_by, role=Role.MANAGER, engineer=True)
    return project


def _check(*, rules: dict[str, Any], settings: dict[str, Any]) -> None:
    faults = {f"rules.{path}": message for path, message in rule_faults(rules).items()} | setting_faults(settings)
    if faults:
        raise Invalid(_("The project cannot be set up like this."), fields=faults)


@transaction.atomic
def change_rules(*, project: Project, changed_by: User, **rules: Any) -> ProjectVersion:
    """Writes the next version of the rules: the last with these fields changed. Open leases keep theirs.

    Locks the project.

    Raises:
        Invalid: a rule that cannot be.
    """
    Project.objects.select_for_update().get(pk=project.pk)
    version = _last_version(project)
    wanted = normal_rules(rules)
    _check(rules=wanted, settings={})
    for field, value in wanted.items():
        if not any(f.name == field for f in ProjectVersion._meta.get_fields()):
            raise ValueError(f"no such rule: {field}")
        setattr(version, field, value)
    version.pk = None
    version._state.adding = True
    version.number += 1
    version.created_by = changed_by
    version.save()
    return version


def _last_version(project: Project) -> ProjectVersion:
    return ProjectVersion.objects.filter(project=project).order_by("-number")[:1].get()


@transaction.atomic
def change_project(
    *,
    project: Project,
    changed_by: User,
    rules: dict[str, Any] | None = None,
    seen: dict[str, Any] | None = None,
    **fields: Any,
) -> Project:
    """Sets fields of the project and, where rules differ from those in force, writes their next version.

    A new overlap is that of tasks made from now on. Locks the project.

    Args:
        seen: what the caller began from, as `state_of` gave it; None: whatever there is now may be overwritten.

    Raises:
        Invalid: a rule or a setting that cannot be; paths as `overlap`, `rules.criteria.0.high`.
        Conflict: the project is not as `seen` any more, with code `changed_meanwhile`.
    """
    locked = Project.objects.select_for_update().get(pk=project.pk)
    now = _last_version(locked)
    if seen is not None and seen != state_of(locked, now):
        raise Conflict(_("Somebody else has changed the project meanwhile."), code="changed_meanwhile")
    wanted, in_force = normal_rules(rules or {}), rules_of(now)
    changed = {name: value for name, value in wanted.items() if in_force.get(name) != value}
    _check(rules=changed, settings=fields)
    if fields:
        _set(locked, fields)
    if changed:
        change_rules(project=locked, changed_by=changed_by, **changed)
    return locked


def _set(project: Project, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        setattr(project, name, value)
    try:
        project.full_clean(validate_unique=False)
    except ValidationError as error:
        faults = {name: " ".join(found) for name, found in error.message_dict.items()}
        raise Invalid(_("The project cannot be set up like this."), fields=faults) from None
    project.save(update_fields=fields)


def state_of(project: Project, version: ProjectVersion) -> dict[str, Any]:
    """What a form of the project begins from: the number of the rules in force, and the settings."""
    return {"version": version.number, "settings": {name: getattr(project, name) for name in SETTINGS}}


@transaction.atomic
def set_archived(*, project: Project, archived: bool) -> Project:
    """Closes the project or opens it again; doing it again changes nothing.

    Of a closed project nobody is handed tasks. What was begun can still be submitted, and everything stays readable.
    Locks the project.
    """
    locked = Project.objects.select_for_update().get(pk=project.pk)
    if archived == (locked.archived_at is not None):
        return locked
    Project.objects.filter(pk=locked.pk).update(archived_at=Now() if archived else None)
    locked.refresh_from_db(fields=["archived_at"])
    return locked


def add_member(
    *,
    project: Project,
    user: User,
    role: Role = Role.ANNOTATOR,
    engineer: bool = False,
    weight: float | None = None,
) -> Membership:
    """Makes the user a member, or changes what the member may do; the weight stays as it is if none is given."""
    fields: dict[str, Any] = {"role": role, "engineer": engineer}
    if weight is not None:
        fields["weight"] = weight
    membership, _made = Membership.objects.update_or_create(project=project, user=user, defaults=fields)
    return membership
