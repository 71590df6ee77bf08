"""Whether somebody has read what a project asks of them."""

from annotate.models import ProjectVersion, ReadingReceipt, User


def has_read(*, user: User, version: ProjectVersion) -> bool:
    """Whether the user has read these guidelines, in this version or an earlier one with the same text.

    A new version that changes other rules asks nobody to read again; without guidelines there is nothing to read.
    """
    if not version.guidelines.strip():
        return True
    receipts = ReadingReceipt.objects.filter(user=user, version__project=version.project_id)
    return receipts.filter(version__guidelines=version.guidelines).exists()
