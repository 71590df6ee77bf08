"""Reading receipts: who has read which version of a project's guidelines."""

from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import Project, ProjectVersion, ReadingReceipt, User


def record_reading(*, project: Project, user: User, number: int) -> ProjectVersion:
    """Keeps that the user has read the guidelines of the version with this number; doing it again changes nothing.

    Raises:
        Invalid: the project has no such version.
    """
    version = ProjectVersion.objects.filter(project=project, number=number).first()
    if version is None:
        raise Invalid(
            _("There is no such version of the guidelines."), fields={"version": "Not a version of this one."}
        )
    ReadingReceipt.objects.get_or_create(version=version, user=user)
    return version
