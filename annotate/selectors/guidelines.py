"""What a project asks of those who rank, and whether somebody has read it."""

from django.db.models import Exists, OuterRef

from annotate.models import Project, ProjectVersion, ReadingReceipt, User


def guidelines_for(user: User, project: Project) -> tuple[ProjectVersion, bool]:
    """The rules now in force, and whether the user has read their guidelines, in this or an earlier version.

    A new version that changes other rules asks nobody to read again; without guidelines there is nothing to read.
    """
    receipts = ReadingReceipt.objects.filter(user=user, version__project=project)
    same = receipts.filter(version__guidelines=OuterRef("guidelines"))
    versions = ProjectVersion.objects.filter(project=project).annotate(read=Exists(same))
    version = versions.order_by("-number")[:1].get()
    return version, version.read or not version.guidelines.strip()
