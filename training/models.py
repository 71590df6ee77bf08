"""Runs, their attempts and measurements, and the registry of models.

The row of a run in Postgres is the truth about it: workers claim it, renew a lease on it and write under the number of
their attempt. Moves between states, the attempt guard and lineage inside one project are triggers and composite keys:
see migration 0002.
"""

from pathlib import Path

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
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


class RunAttempt(models.Model):
    """One worker's try at a run: one claim, at most one trainer process."""

    class Outcome(models.TextChoices):
        SUCCEEDED = "succeeded", pgettext_lazy("state of a run", "Succeeded")
        FAILED = "failed", pgettext_lazy("state of a run", "Failed")
        CANCELLED = "cancelled", pgettext_lazy("state of a run", "Cancelled")
        RELEASED = "released", pgettext_lazy("state of a run", "Released")  # its worker was stopped and gave it back
        LOST = "lost", pgettext_lazy("state of a run", "Lost")  # the worker or the trainer ended without a word

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    worker = models.CharField(max_length=200)
    host = models.CharField(max_length=200)
    process_id = models.PositiveIntegerField(null=True, blank=True, help_text="Of the trainer, on that host.")
    process_started_at = models.FloatField(
        null=True, blank=True, help_text="Seconds since 1970 by the host's clock: tells the process from a later one."
    )
    from_step = models.PositiveIntegerField(
        null=True, blank=True, help_text="Steps already done when the trainer began; null until it says."
    )
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome, blank=True)

    class Meta:
        ordering = ["run", "number"]
        constraints = [
            models.UniqueConstraint(name="one_attempt_per_number", fields=["run", "number"]),
            models.UniqueConstraint(name="one_open_attempt_per_run", fields=["run"], condition=Q(outcome="")),
            models.CheckConstraint(name="attempt_number_from_1", condition=Q(number__gte=1)),
            models.CheckConstraint(
                name="attempt_outcome_known",
                condition=Q(outcome="", ended_at__isnull=True)
                | Q(outcome__in=["succeeded", "failed", "cancelled", "released", "lost"], ended_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} at run {self.run_id}"


class RunMember(models.Model):
    """A worker that trains a run together with others, in one attempt. That of rank 0 holds the run itself.

    Members are of the attempt that holds the run, and end with it: migration 0008.
    """

    class Outcome(models.TextChoices):
        DONE = "done", pgettext_lazy("state of a member of a run", "Done")
        LEFT = "left", pgettext_lazy("state of a member of a run", "Left")  # its worker was stopped in good order
        LOST = "lost", pgettext_lazy("state of a member of a run", "Lost")

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="members")
    attempt = models.PositiveIntegerField()
    rank = models.PositiveSmallIntegerField(help_text="Of the machine; 0 is where the others meet.")
    worker = models.CharField(max_length=200)
    host = models.CharField(max_length=200)
    address = models.CharField(max_length=200, help_text="At which the others reach it.")
    port = models.PositiveIntegerField(null=True, blank=True, help_text="Of rank 0, once it is ready for the others.")
    lease_expires_at = models.DateTimeField(null=True, blank=True, help_text="Null: rank 0, whose lease is the run's.")
    joined_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome, blank=True)

    class Meta:
        ordering = ["run", "attempt", "rank"]
        constraints = [
            models.UniqueConstraint(name="one_member_per_rank", fields=["run", "attempt", "rank"]),
            models.UniqueConstraint(
                name="one_open_member_per_worker", fields=["run", "worker"], condition=Q(ended_at__isnull=True)
            ),
            models.CheckConstraint(
                name="member_ends_with_an_outcome",
                condition=Q(ended_at__isnull=True, outcome="")
                | Q(ended_at__isnull=False, outcome__in=["done", "left", "lost"]),
            ),
            models.CheckConstraint(
                name="member_has_a_lease", condition=Q(rank=0) | Q(rank__gte=1, lease_expires_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"member {self.rank} of attempt {self.attempt} at run {self.run_id}"


class RunMetric(models.Model):
    """What a recipe measured at one step: a line of metrics.jsonl."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    values = models.JSONField(help_text="Name → number, null where it was not finite.")
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["run", "step"]
        constraints = [
            models.UniqueConstraint(name="one_metric_row_per_step", fields=["run", "step"]),
            models.CheckConstraint(name="metric_step_from_1", condition=Q(step__gte=1)),
        ]
        indexes = [
            # The last measurement on held-out data may lie many thousand steps back.
            models.Index(
                name="metric_held_out",
                fields=["run", "-step"],
                condition=Q(values__has_any_keys=["validation/accuracy", "validation/loss", "validation/score"]),
            ),
        ]

    def __str__(self) -> str:
        return f"step {self.step} of run {self.run_id}"


class MetricStretch(models.Model):
    """What a stretch of steps came to, so that the curves of a long run need not be drawn from all its rows.

    Stretch n is of the steps n × STEPS + 1 to (n + 1) × STEPS, and is written when the last of them is there. It can be
    made anew from the rows at any time.
    """

    STEPS = 64

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="stretches")
    number = models.PositiveIntegerField()
    values = models.JSONField(help_text="Name → count, mean, step of the lowest, lowest, step of the highest, highest.")

    class Meta:
        ordering = ["run", "number"]
        constraints = [models.UniqueConstraint(name="one_stretch_per_number", fields=["run", "number"])]

    def __str__(self) -> str:
        return f"stretch {self.number} of run {self.run_id}"


class ModelVersion(models.Model):
    """A model in the registry: a plain Hugging Face folder, and where it came from."""

    class Kind(models.TextChoices):
        POLICY = "policy", _("Policy")
        REWARD = "reward", _("reward model")

    class Stage(models.TextChoices):
        NEW = "new", pgettext_lazy("stage of a model", "New")
        CANDIDATE = "candidate", pgettext_lazy("stage of a model", "Candidate")
        PRODUCTION = "production", pgettext_lazy("stage of a model", "Production")
        ARCHIVED = "archived", pgettext_lazy("stage of a model", "Archived")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="models")
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=10, choices=Kind)
    stage = models.CharField(max_length=10, choices=Stage, default=Stage.NEW)
    run = models.OneToOneField(Run, on_delete=models.PROTECT, null=True, blank=True, related_name="model")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    folder = models.CharField(max_length=300, unique=True, help_text="Under the folder of runs.")
    size_bytes = models.BigIntegerField()
    report = models.JSONField(default=dict, help_text="report.json of its run: what it scored on held-out data.")
    shared = models.BooleanField(default=False, help_text="Engineers of other projects may read and train from it.")
    created_at = models.DateTimeField(db_default=Now())
    deleted_at = models.DateTimeField(
        null=True, blank=True, help_text="Its files are gone, or about to go; the lineage stays."
    )
    files_removed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the files of a deleted model were found to be gone."
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(name="model_of_project", fields=["id", "project"]),
            models.UniqueConstraint(
                name="one_production_model", fields=["project", "kind"], condition=Q(stage="production")
            ),
            models.CheckConstraint(name="model_kind_known", condition=Q(kind__in=["policy", "reward"])),
            models.CheckConstraint(
                name="model_stage_known", condition=Q(stage__in=["new", "candidate", "production", "archived"])
            ),
            models.CheckConstraint(name="model_size_not_negative", condition=Q(size_bytes__gte=0)),
            models.CheckConstraint(name="model_is_not_its_parent", condition=~Q(parent=F("id"))),
            models.CheckConstraint(
                name="model_in_production_is_kept", condition=~Q(stage="production") | Q(deleted_at__isnull=True)
            ),
            models.CheckConstraint(
                name="model_files_go_with_it", condition=Q(files_removed_at__isnull=True) | Q(deleted_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.get_kind_display()} {self.pk})"

    def get_absolute_url(self) -> str:
        return reverse("model", args=[self.pk])

    @property
    def path(self) -> Path:
        """The folder on this machine's disk."""
        return Path(settings.RUNS_ROOT) / self.folder


class ModelEvent(models.Model):
    """Something that was done with a model of the registry. Append-only: a trigger refuses everything else."""

    class What(models.TextChoices):
        STAGE = "stage", pgettext_lazy("event of a model", "Stage")
        DELETED = "deleted", pgettext_lazy("event of a model", "Deleted")
        FILES_REMOVED = "files_removed", pgettext_lazy("event of a model", "Files removed")
        FILES_KEPT = "files_kept", pgettext_lazy("event of a model", "Files could not be removed")
        PUSHED = "pushed", pgettext_lazy("event of a model", "Pushed to a hub")

    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="events")
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Null: the server, or whoever works on it.",
    )
    what = models.CharField(max_length=15, choices=What)
    from_stage = models.CharField(max_length=10, choices=ModelVersion.Stage, blank=True)
    to_stage = models.CharField(max_length=10, choices=ModelVersion.Stage, blank=True)
    reason = models.TextField(blank=True, help_text="Why, or where to, in a person's or the system's words.")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="model_event_known",
                condition=Q(
                    what="stage",
                    from_stage__in=["new", "candidate", "production", "archived"],
                    to_stage__in=["new", "candidate", "production", "archived"],
                )
                & ~Q(from_stage=F("to_stage"))
                | Q(what__in=["deleted", "files_removed", "files_kept", "pushed"], from_stage="", to_stage=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.what} of model {self.model_id}"


class Worker(models.Model):
    """What a worker last said of itself and its machine. It says so every few seconds; see services.workers."""

    name = models.CharField(max_length=200, unique=True, help_text="As in Run.worker.")
    host = models.CharField(max_length=200)
    process_id = models.PositiveIntegerField(help_text="On that host.")
    queues = ArrayField(models.CharField(max_length=100), help_text="It takes runs from these.")
    version = models.CharField(max_length=50, blank=True, help_text="Of Plackett.")
    processes = models.PositiveSmallIntegerField(
        default=1, db_default=1, help_text="Of one run that it starts side by side."
    )
    processors = models.PositiveIntegerField(help_text="That it may use.")
    memory_bytes = models.BigIntegerField()
    memory_used_bytes = models.BigIntegerField()
    gpus = models.JSONField(default=list, help_text="Of each: name, memory_bytes, memory_used_bytes, busy (0 to 1).")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_default=Now())
    stopped_at = models.DateTimeField(null=True, blank=True, help_text="It said goodbye.")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                name="worker_memory_not_negative", condition=Q(memory_bytes__gte=0, memory_used_bytes__gte=0)
            ),
        ]

    def __str__(self) -> str:
        return self.name
