"""Runs, the models that they read besides their base, and tries."""

from pathlib import Path

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from annotate.models import Project, Snapshot


class Run(models.Model):
    """One training, evaluation or sampling job. What decides its result is fixed when it is started."""

    class Kind(models.TextChoices):
        SFT = "sft", "SFT"
        REWARD = "reward", _("Reward model")
        PPO = "ppo", "PPO"
        DPO = "dpo", "DPO"
        EVALUATE = "evaluate", _("Evaluation")
        SAMPLE = "sample", _("Sampling")

    class State(models.TextChoices):
        WAITING = "waiting", pgettext_lazy("state of a run", "Waiting")  # for its parent
        QUEUED = "queued", pgettext_lazy("state of a run", "Queued")  # for a worker
        STARTING = "starting", pgettext_lazy("state of a run", "Starting")  # claimed: fetches data and base model
        RUNNING = "running", pgettext_lazy("state of a run", "Running")
        STOPPING = "stopping", pgettext_lazy("state of a run", "Stopping")  # cancelled, the trainer has yet to end
        SUCCEEDED = "succeeded", pgettext_lazy("state of a run", "Succeeded")
        FAILED = "failed", pgettext_lazy("state of a run", "Failed")
        CANCELLED = "cancelled", pgettext_lazy("state of a run", "Cancelled")

    ACTIVE = (State.STARTING, State.RUNNING, State.STOPPING)  # a worker holds a lease on it
    FINISHED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="runs")
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=10, choices=Kind)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    suspect = models.BooleanField(default=False, help_text="Its numbers should not be trusted unseen.")
    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, null=True, blank=True, related_name="runs")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    cloned_from = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="clones",
        help_text="The run whose settings filled in the form that started it.",
    )
    base_model = models.CharField(max_length=300, help_text="As it was named: built in, registry:ID, folder or hub id.")
    base_version = models.ForeignKey(
        "training.ModelVersion", on_delete=models.PROTECT, null=True, blank=True, related_name="runs_from_it"
    )
    config = models.JSONField(default=dict, help_text="Every setting of the recipe that decides the result.")
    queue = models.CharField(
        max_length=30, default="gpu", validators=[RegexValidator(r"\A[a-z][a-z0-9._-]*\Z")], help_text="Kind of worker."
    )
    processes = models.PositiveSmallIntegerField(
        default=1,
        db_default=1,
        help_text="On each machine, one for each GPU; fixed, as a resumed run must have as many.",
    )
    nodes = models.PositiveSmallIntegerField(default=1, db_default=1, help_text="Machines that train it together.")
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    attempt = models.PositiveIntegerField(
        default=0, help_text="Counts claims; every write names the one it belongs to."
    )
    times_lost = models.PositiveSmallIntegerField(
        default=0, help_text="Attempts that ended without a word since it was queued by a person."
    )
    worker = models.CharField(max_length=200, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)

    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(null=True, blank=True)
    reason = models.TextField(blank=True, help_text="Why it failed or was put back, for people.")
    log_tail = models.TextField(blank=True)
    exit = models.JSONField(null=True, blank=True, help_text="exit.json of the last attempt.")
    report = models.JSONField(null=True, blank=True, help_text="report.json of the finished run.")
    trackers = models.JSONField(
        default=dict,
        db_default=models.Value({}, models.JSONField()),
        blank=True,
        help_text="Tracker → url where it shows the run, fault, known_as.",
    )
    stored = models.JSONField(
        null=True,
        blank=True,
        help_text="What of it is in the bucket: files of its results, steps and bytes of its checkpoints. Null: "
        "nothing, as where artifacts are a folder.",
    )
    keeps_checkpoints = models.BooleanField(
        default=False, db_default=False, help_text="Somebody wants them kept, whatever the rules of retention say."
    )
    checkpoints_removed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the rules of retention had nothing more to remove."
    )

    created_at = models.DateTimeField(db_default=Now())
    queued_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True, help_text="When the first attempt began.")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(name="run_queue", fields=["queue", "queued_at", "id"], condition=Q(state="queued")),
            models.Index(
                name="run_lease",
                fields=["lease_expires_at"],
                condition=Q(state__in=["starting", "running", "stopping"]),
            ),
            models.Index(name="run_by_project", fields=["project", "-id"]),
        ]
        constraints = [
            models.UniqueConstraint(name="run_of_project", fields=["id", "project"]),
            models.CheckConstraint(
                name="run_kind_known", condition=Q(kind__in=["sft", "reward", "ppo", "dpo", "evaluate", "sample"])
            ),
            models.CheckConstraint(
                name="run_state_known",
                condition=Q(
                    state__in=[
                        "waiting",
                        "queued",
                        "starting",
                        "running",
                        "stopping",
                        "succeeded",
                        "failed",
                        "cancelled",
                    ]
                ),
            ),  # fmt: skip
            models.CheckConstraint(
                name="run_trains_from_a_snapshot", condition=Q(kind="sample") | Q(snapshot__isnull=False)
            ),
            models.CheckConstraint(
                name="run_waits_for_a_parent", condition=~Q(state="waiting") | Q(parent__isnull=False)
            ),
            models.CheckConstraint(
                name="run_queued_at_known", condition=~Q(state="queued") | Q(queued_at__isnull=False)
            ),
            models.CheckConstraint(
                name="run_lease_while_active",
                condition=Q(
                    state__in=["starting", "running", "stopping"],
                    lease_expires_at__isnull=False,
                    heartbeat_at__isnull=False,
                    started_at__isnull=False,
                    attempt__gte=1,
                )
                & ~Q(worker="")
                | Q(state__in=["waiting", "queued", "succeeded", "failed", "cancelled"], lease_expires_at__isnull=True),
            ),
            models.CheckConstraint(
                name="run_stops_when_asked",
                condition=~Q(state="stopping") | Q(cancel_requested_at__isnull=False),
            ),
            models.CheckConstraint(
                name="run_finished_at_known",
                condition=Q(state__in=["succeeded", "failed", "cancelled"], finished_at__isnull=False)
                | Q(state__in=["waiting", "queued", "starting", "running", "stopping"], finished_at__isnull=True),
            ),
            models.CheckConstraint(name="run_failure_has_a_reason", condition=~Q(state="failed") | ~Q(reason="")),
            models.CheckConstraint(
                name="run_total_steps_from_1", condition=Q(total_steps__isnull=True) | Q(total_steps__gte=1)
            ),
            models.CheckConstraint(name="run_is_not_its_parent", condition=~Q(parent=F("id"))),
            models.CheckConstraint(
                name="run_processes_from_1",
                condition=Q(processes__gte=1, processes__lte=64, nodes__gte=1, nodes__lte=64),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.get_kind_display()} {self.pk})"

    def get_absolute_url(self) -> str:
        return reverse("run", args=[self.pk])

    @property
    def is_active(self) -> bool:
        """Whether a worker holds it."""
        return self.state in self.ACTIVE

    @property
    def is_finished(self) -> bool:
        """Whether it will not move again by itself."""
        return self.state in self.FINISHED

    @property
    def folder(self) -> Path:
        """Where its files are on every worker's disk."""
        return Path(settings.RUNS_ROOT) / str(self.pk)

    @property
    def store_prefix(self) -> str:
        """Where its files are in the bucket. With the time, because ids come again after an older backup was restored,
        and a run must not find the checkpoints of another."""
        return f"runs/{self.pk}-{self.created_at:%Y%m%d%H%M%S%f}"


class RunInput(models.Model):
    """A model besides the base that a run reads: a reward model, a judge that nothing learns from, the policy that
    another is compared with, or further policies that are sampled."""

    class Role(models.TextChoices):
        REWARD = "reward_model", pgettext_lazy("what a model is to a run", "Reward model")
        JUDGE = "judge", pgettext_lazy("what a model is to a run", "Judge")
        BASELINE = "baseline", pgettext_lazy("what a model is to a run", "Baseline")
        MODEL_2 = "model_2", pgettext_lazy("what a model is to a run", "Second model")
        MODEL_3 = "model_3", pgettext_lazy("what a model is to a run", "Third model")
        MODEL_4 = "model_4", pgettext_lazy("what a model is to a run", "Fourth model")

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="inputs")
    role = models.CharField(max_length=20, choices=Role, help_text="The recipe's flag, or --model.")
    name = models.CharField(max_length=300, help_text="As it was named: registry:ID, run:ID, folder or hub id.")
    version = models.ForeignKey(
        "training.ModelVersion", on_delete=models.PROTECT, null=True, blank=True, related_name="runs_that_read_it"
    )

    class Meta:
        ordering = ["run", "role"]
        constraints = [
            models.UniqueConstraint(name="one_input_per_role", fields=["run", "role"]),
            models.CheckConstraint(
                name="input_role_known",
                condition=Q(role__in=["reward_model", "judge", "baseline", "model_2", "model_3", "model_4"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} of run {self.run_id}: {self.name}"


class Try(models.Model):
    """What a sampling run without a snapshot answers: one conversation, for the person who watches it being written.

    Its run is removed a while after it ended; see services.tries.
    """

    run = models.OneToOneField(Run, on_delete=models.CASCADE, primary_key=True, related_name="tried")
    messages = models.JSONField(help_text="[{role, content}, …], as prompts have them.")
    split_group = models.TextField(
        null=True, blank=True, help_text="Of the project's prompt that it is; null: what follows from the messages."
    )
    shows_thinking = models.BooleanField(default=False, help_text="On the page.")
    seen_at = models.DateTimeField(db_default=Now(), help_text="When somebody last looked.")
    result = models.JSONField(
        null=True, blank=True, help_text="responses: what responses.jsonl says of each; seconds: of each model."
    )

    class Meta:
        ordering = ["-run"]
        verbose_name_plural = "tries"

    def __str__(self) -> str:
        return f"try {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("try", args=[self.run.project.slug, self.pk])
