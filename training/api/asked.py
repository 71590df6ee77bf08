"""What lists of runs and models may be narrowed to."""

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from annotate.models import Project, User
from annotate.selectors.projects import get_project_for

OF_PROJECT = OpenApiParameter("project", str, description="Slug: only this project's.")


def project_asked(request: Request, user: User) -> Project | None:
    """The project that the address names, for its engineer; None where it names none."""
    slug = request.query_params.get("project")
    return None if slug is None else get_project_for(user, slug, engineer=True)
