"""Projects: list, create, read, change. And who the caller is."""

from typing import Any

from django.db import IntegrityError
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.filters import filtered, parameters, yes
from annotate.api.idempotency import idempotent
from annotate.api.pagination import page_of, page_parameters
from annotate.api.shapes.me import MeAnswer
from annotate.api.shapes.projects import (
    ProjectAnswer,
    ProjectChangeShape,
    ProjectPage,
    ProjectRow,
    ProjectShape,
    RulesShape,
)
from annotate.errors import Conflict, Forbidden
from annotate.models import ApiToken, Project, Role, User
from annotate.selectors.access import may_create_projects
from annotate.selectors.projects import current_version, get_project_for, membership_of, projects_of
from annotate.services.projects import change_project, create_project

ORDERS = {"id": "pk", "slug": "slug", "created_at": "created_at"}
FILTERS = (
    yes("archived", "archived_at__isnull", "1: only closed ones; 0: only open ones.", same=lambda value: not value),
)


class Me(Endpoint):
    @extend_schema(operation_id="me", responses=MeAnswer)
    def get(self, request: Request) -> Response:
        """Who asks, with which scopes, and in which projects they may do what."""
        user, token = asking(request), request.auth
        memberships = user.memberships.filter(deactivated_at=None).select_related("project").order_by("project__slug")
        return Response(
            {
                "username": user.username,
                "kind": user.kind,
                "superuser": user.is_superuser,
                "scopes": token.scopes if isinstance(token, ApiToken) else None,
                "expires_at": token.expires_at if isinstance(token, ApiToken) else None,
                "memberships": [
                    {"project": one.project.slug, "role": one.role, "engineer": one.engineer} for one in memberships
                ],
            }
        )


class Projects(Endpoint):
    @extend_schema(
        operation_id="list_projects",
        parameters=[*page_parameters(ORDERS), *parameters(FILTERS)],
        responses=ProjectPage,
    )
    def get(self, request: Request) -> Response:
        """The caller's projects; a superuser's are all."""
        projects = filtered(projects_of(asking(request)), request, FILTERS)
        return Response(page_of(projects, request, lambda rows: [*ProjectRow(rows, many=True).data], orders=ORDERS))

    @extend_schema(operation_id="create_project", request=ProjectShape, responses={201: ProjectAnswer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Makes a project, its first rules, and the caller its manager and engineer."""
        user = asking(request)
        if not may_create_projects(user):
            raise Forbidden(_("Making projects needs a superuser, or the permission annotate.add_project."))
        shape = ProjectShape(data=request.data)
        shape.is_valid(raise_exception=True)
        try:
            project = create_project(created_by=user, **shape.validated_data)
        except IntegrityError:
            raise Conflict(_("This slug was taken a moment ago."), code="slug_taken") from None
        return Response(project_content(project, user=user), status=201)


class OneProject(Endpoint):
    @extend_schema(operation_id="read_project", responses=ProjectAnswer)
    def get(self, request: Request, slug: str) -> Response:
        """The project, the rules now in force, and what the caller may do in it."""
        user = asking(request)
        return Response(project_content(get_project_for(user, slug), user=user))

    @extend_schema(operation_id="change_project", request=ProjectChangeShape, responses=ProjectAnswer)
    def patch(self, request: Request, slug: str) -> Response:
        """Changes what is given. A change of rules is a new version: open leases keep the one they pinned."""
        user = asking(request)
        project = get_project_for(user, slug, role=Role.MANAGER)
        shape = ProjectChangeShape(data=request.data)
        shape.is_valid(raise_exception=True)
        project = change_project(project=project, changed_by=user, **shape.validated_data)
        return Response(project_content(project, user=user))


def project_content(project: Project, *, user: User) -> dict[str, Any]:
    """What ProjectAnswer describes."""
    version = current_version(project)
    membership = membership_of(user=user, project=project)
    return {
        **ProjectRow(project).data,
        "version": version.number,
        "rules": RulesShape(version).data,
        "me": {"role": membership.role, "engineer": membership.engineer},
    }
