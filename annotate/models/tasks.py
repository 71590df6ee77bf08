"""Who ranks what: tasks, their slots, and the leases on them."""

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from annotate.models.projects import Project, ProjectVersion
from annotate.models.prompts import Prompt, Response


class RankingTask(models.Model):
    """A prompt with 2 to 9 of its responses, to be ranked by `overlap` annotators."""

    class Kind(models.TextChoices):
        NORMAL = "normal", pgettext_lazy("kind of task", "Normal")
        GOLD = "gold", pgettext_lazy("kind of task", "Gold")
        REPEAT = "repeat", pgettext_lazy("kind of task", "Repeat")

    class State(models.TextChoices):
        OPEN = "open", pgettext_lazy("state of a task", "Open")
        HELD = "held", pgettext_lazy("state of a task", "Held")  # skipped too often or flagged: waits for the manager
        CLOSED = "closed", pgettext_lazy("state of a task", "Closed")  # by the manager; what was ranked stays

    class Priority(models.IntegerChoices):
        URGENT = 0
        HIGH = 1
        NORMAL = 2
        LOW = 3

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="tasks")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="tasks")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.NORMAL)
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    overlap = models.PositiveSmallIntegerField(help_text="0: comes ranked from elsewhere and is not ranked here.")
    priority = models.SmallIntegerField(choices=Priority, default=Priority.NORMAL)
    repeat_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="repeats")
    expected = models.JSONField(null=True, blank=True, help_text="The known answer of a gold task.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(name="task_by_project", fields=["project", "id"]),
            models.Index(name="task_held", fields=["project", "id"], condition=Q(state="held")),
            models.Index(name="task_closed", fields=["project", "id"], condition=Q(state="closed")),
            # For machines, which take tasks by priority; the many of the normal one (2) are found in the order of ids.
            models.Index(name="task_by_priority", fields=["project", "priority", "id"], condition=~Q(priority=2)),
        ]
        constraints = [
            models.UniqueConstraint(name="task_with_prompt", fields=["id", "prompt"]),
            models.UniqueConstraint(name="task_of_project", fields=["id", "project"]),
            models.CheckConstraint(name="task_kind_known", condition=Q(kind__in=["normal", "gold", "repeat"])),
            models.CheckConstraint(name="task_state_known", condition=Q(state__in=["open", "held", "closed"])),
            models.CheckConstraint(name="task_priority_known", condition=Q(priority__range=(0, 3))),
            models.CheckConstraint(name="task_overlap_0_to_50", condition=Q(overlap__range=(0, 50))),
            models.CheckConstraint(
                name="repeat_names_its_task",
                condition=Q(kind="repeat", repeat_of__isnull=False) | (~Q(kind="repeat") & Q(repeat_of__isnull=True)),
            ),
        ]

    def __str__(self) -> str:
        return f"task {self.pk}"


class TaskResponse(models.Model):
    """One of the task's responses; always a response to the task's own prompt."""

    task = models.ForeignKey(RankingTask, on_delete=models.CASCADE, related_name="task_responses")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="+")
    response = models.ForeignKey(Response, on_delete=models.CASCADE, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(name="one_row_per_task_and_response", fields=["task", "response"])]

    def __str__(self) -> str:
        return f"response {self.response_id} in task {self.task_id}"


class Lease(models.Model):
    """A task handed to an annotator: under which rules, in which order. Kept after it ended, so that a late answer
    is checked and stored as what the annotator really saw."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    task = models.ForeignKey(RankingTask, on_delete=models.CASCADE, related_name="leases")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="leases")
    version = models.ForeignKey(ProjectVersion, on_delete=models.PROTECT, related_name="+")
    presented_order = ArrayField(models.BigIntegerField())
    leased_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(name="lease_by_task_and_annotator", fields=["task", "annotator"])]
        constraints = [
            models.UniqueConstraint(name="lease_with_task_and_annotator", fields=["id", "task", "annotator"])
        ]

    def __str__(self) -> str:
        return str(self.id)


class Slot(models.Model):
    """One of a task's `overlap` places. Free, leased to one annotator, or done with that annotator's ranking.

    Or, `beyond_overlap`, a place that a machine made for itself, with a number above 1000: it counts for nobody else.

    `lane` and `offer` are the place in the queue: lanes in ascending order, offers ascending within a lane. Offers come
    in commit order (Counter), so that a cursor past an offer has seen everything before it.
    """

    class State(models.TextChoices):
        FREE = "free"
        LEASED = "leased"
        DONE = "done"

    task = models.ForeignKey(RankingTask, on_delete=models.CASCADE, related_name="slots")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="slots")
    number = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.FREE)
    holder = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="slots"
    )
    reserved_for = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    lease = models.OneToOneField(Lease, on_delete=models.SET_NULL, null=True, blank=True, related_name="slot")
    expires_at = models.DateTimeField(null=True, blank=True)
    version = models.ForeignKey(ProjectVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    presented_order = ArrayField(models.BigIntegerField(), null=True, blank=True)
    current_ranking = models.OneToOneField(
        "annotate.Ranking", on_delete=models.PROTECT, null=True, blank=True, related_name="closed_slot"
    )
    lane = models.SmallIntegerField()
    offer = models.BigIntegerField()
    beyond_overlap = models.BooleanField(
        default=False, db_default=False, help_text="A machine's own place: it fills none that people are to fill."
    )

    class Meta:
        indexes = [
            models.Index(
                name="slot_queue",
                fields=["project", "lane", "offer", "number"],
                condition=Q(state="free", reserved_for__isnull=True),
            ),
            models.Index(
                name="slot_reserved",
                fields=["reserved_for", "project"],
                condition=Q(state="free", reserved_for__isnull=False),
            ),
            models.Index(name="slot_leased_by_holder", fields=["holder", "project"], condition=Q(state="leased")),
            models.Index(name="slot_leased_by_expiry", fields=["project", "expires_at"], condition=Q(state="leased")),
            models.Index(name="slot_done", fields=["project", "holder"], condition=Q(state="done")),
        ]
        constraints = [
            models.UniqueConstraint(name="one_slot_per_task_and_number", fields=["task", "number"]),
            models.UniqueConstraint(
                name="one_slot_per_task_and_holder", fields=["task", "holder"], condition=Q(holder__isnull=False)
            ),
            models.UniqueConstraint(name="slot_with_task", fields=["id", "task"]),
            models.UniqueConstraint(name="slot_with_holder", fields=["id", "holder"]),
            models.CheckConstraint(name="slot_number_from_1", condition=Q(number__gte=1)),
            models.CheckConstraint(
                name="slot_state_consistent",
                condition=Q(
                    state="free",
                    holder__isnull=True,
                    lease__isnull=True,
                    expires_at__isnull=True,
                    version__isnull=True,
                    presented_order__isnull=True,
                    current_ranking__isnull=True,
                )
                | Q(
                    state="leased",
                    holder__isnull=False,
                    lease__isnull=False,
                    expires_at__isnull=False,
                    version__isnull=False,
                    presented_order__isnull=False,
                    current_ranking__isnull=True,
                )
                | Q(
                    state="done",
                    holder__isnull=False,
                    expires_at__isnull=True,
                    version__isnull=False,
                    presented_order__isnull=False,
                    current_ranking__isnull=False,
                ),
            ),
            models.CheckConstraint(
                name="slot_beyond_overlap_is_never_offered",
                condition=Q(beyond_overlap=False)
                | Q(reserved_for__isnull=False, state__in=["leased", "done"], number__gt=1000),
            ),
            models.CheckConstraint(
                name="reserved_slot_held_by_that_person",
                condition=Q(reserved_for__isnull=True) | Q(holder__isnull=True) | Q(holder=models.F("reserved_for")),
            ),
        ]

    def __str__(self) -> str:
        return f"slot {self.number} of task {self.task_id}"


class QueueCursor(models.Model):
    """How far in a lane an annotator has been: every offer up to here is nothing for them, for good."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    lane = models.SmallIntegerField()
    offer = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_cursor_per_annotator_and_lane", fields=["project", "annotator", "lane"])
        ]

    def __str__(self) -> str:
        return f"cursor of {self.annotator_id} in lane {self.lane}: {self.offer}"


class Skip(models.Model):
    """An annotator passes a task on: the slot is freed and the task not offered to that person again."""

    class Reason(models.TextChoices):
        UNCLEAR = "unclear", _("The prompt is unclear")
        EXPERT = "expert", _("It needs an expert")
        LANGUAGE = "language", _("I do not know the language")
        LONG = "long", _("It is too long")
        UNSAFE = "unsafe", _("It is unsafe or distressing")
        OTHER = "other", _("Another reason")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="skips")
    task = models.ForeignKey(RankingTask, on_delete=models.CASCADE, related_name="skips")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="skips")
    reason = models.CharField(max_length=10, choices=Reason)
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_skip_per_task_and_annotator", fields=["task", "annotator"]),
            models.CheckConstraint(
                name="skip_reason_known",
                condition=Q(reason__in=["unclear", "expert", "language", "long", "unsafe", "other"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.annotator_id} skipped task {self.task_id}"


class TaskFlag(models.Model):
    """Someone asks the manager to look at a task; `unsafe` holds it at once."""

    class Kind(models.TextChoices):
        UNCLEAR = "unclear", pgettext_lazy("flag on a task", "Unclear")
        UNSAFE = "unsafe", pgettext_lazy("flag on a task", "Unsafe")
        EXPERT = "expert", pgettext_lazy("flag on a task", "Expert")

    task = models.ForeignKey(RankingTask, on_delete=models.CASCADE, related_name="flags")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=10, choices=Kind)
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        indexes = [models.Index(name="flag_unsettled", fields=["task"], condition=Q(settled_at__isnull=True))]
        constraints = [
            models.UniqueConstraint(name="one_flag_per_task_annotator_and_kind", fields=["task", "annotator", "kind"]),
            models.CheckConstraint(name="task_flag_kind_known", condition=Q(kind__in=["unclear", "unsafe", "expert"])),
        ]

    def __str__(self) -> str:
        return f"{self.kind} flag on task {self.task_id}"


class Draft(models.Model):
    """What an annotator has arranged but not submitted. A write names the version it saw; a stale one is refused."""

    task = models.ForeignKey(RankingTask, on_delete=models.CASCADE, related_name="drafts")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    version = models.PositiveIntegerField(default=1)
    body = models.JSONField()
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_draft_per_task_and_annotator", fields=["task", "annotator"]),
            models.CheckConstraint(name="draft_version_from_1", condition=Q(version__gte=1)),
        ]

    def __str__(self) -> str:
        return f"draft {self.version} of {self.annotator_id} on task {self.task_id}"
