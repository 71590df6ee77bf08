"""Making projects, their rules and their members."""

from typing import Any

from django.db import transaction

from annotate.models import Membership, Project, ProjectVersion, Role, User


@transaction.atomic
def create_project(
    *, slug: str, name: str, created_by: User | None = None, rules: dict[str, Any] | None = None, **fields: Any
) -> Project:
    """Writes the project, version 1 of its rules, and its maker as manager and engineer.

    Args:
        rules: fields of ProjectVersion (guidelines, allow_ties, …); defaults where absent.
        fields: further fields of Project (overlap, lease_seconds, …).
    """
    project = Project(slug=slug, name=name, **fields)
    project.full_clean()
    project.save()
    ProjectVersion.objects.create(project=project, number=1, created_by=created_by, **(rules or {}))
    if created_by is not None:
        add_member(project=project, user=created_by, role=Role.MANAGER, engineer=True)
    return project


@transaction.atomic
def change_rules(*, project: Project, changed_by: User, **rules: Any) -> ProjectVersion:
    """Writes the next version of the rules: the last with these fields changed. Open leases keep theirs."""
    Project.objects.select_for_update().get(pk=project.pk)
    version = ProjectVersion.objects.filter(project=project).order_by("-number")[:1].get()
    for field, value in rules.items():
        if not any(f.name == field for f in ProjectVersion._meta.get_fields()):
            raise ValueError(f"no such rule: {field}")
        setattr(version, field, value)
    version.pk = None
    version._state.adding = True
    version.number += 1
    version.created_by = changed_by
    version.save()
    return version


@transaction.atomic
def change_project(
    *, project: Project, changed_by: User, rules: dict[str, Any] | None = None, **fields: Any
) -> Project:
    """Sets fields of the project and, where rules differ from those in force, writes their next version.

    A new overlap is that of tasks made from now on. Locks the project.

    Raises:
        django.core.exceptions.ValidationError: a field out of range.
    """
    locked = Project.objects.select_for_update().get(pk=project.pk)
    for name, value in fields.items():
        setattr(locked, name, value)
    if fields:
        locked.full_clean(validate_unique=False)
        locked.save(update_fields=fields)
    now = ProjectVersion.objects.filter(project=locked).order_by("-number")[:1].get()
    changed = {name: value for name, value in (rules or {}).items() if getattr(now, name) != value}
    if changed:
        change_rules(project=locked, changed_by=changed_by, **changed)
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
    membership, _ = Membership.objects.update_or_create(project=project, user=user, defaults=fields)
    return membership
