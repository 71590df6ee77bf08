"""What /metrics tells of annotation: tasks in people's hands, and how much has been recorded."""

from dataclasses import dataclass

from django.db.models import Count, Q, Sum
from django.db.models.functions import Now

from annotate.models import Counter, Slot


@dataclass(frozen=True, slots=True)
class AnnotationFigures:
    """Of all projects: leases on slots that hold and that have ended, and how many changes were ever recorded."""

    leases_open: int
    leases_expired: int
    changes: int


def annotation_figures() -> AnnotationFigures:
    """Two small queries: one reads the index of leased slots, the other one row a project."""
    leased = Slot.objects.filter(state=Slot.State.LEASED)
    leases = leased.aggregate(every=Count("pk"), expired=Count("pk", filter=Q(expires_at__lt=Now())))
    changes = Counter.objects.filter(name=Counter.Name.CHANGE).aggregate(sum=Sum("value"))
    return AnnotationFigures(
        leases_open=leases["every"] - leases["expired"], leases_expired=leases["expired"], changes=changes["sum"] or 0
    )
