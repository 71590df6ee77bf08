"""`manage.py start_run`: queues a run from a snapshot and, if asked, watches it to its end."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from annotate.errors import Invalid, Refused
from annotate.models import Project, Snapshot, User
from training.models import Run, RunInput
from training.pages.report import report_headline
from training.selectors import accuracy_of, trainable_snapshots
from training.services.notices import lines_of
from training.services.run_settings import with_preset
from training.services.runs import look_ahead, start_run

LOOK_SECONDS = 1.0
INPUTS_HELP: dict[str, str] = {
    RunInput.Role.REWARD: "for ppo, sample and comparing policies, named as base models are",
    RunInput.Role.JUDGE: "for ppo and comparing policies: a reward model nothing learns from",
    RunInput.Role.BASELINE: "for evaluate: the policy to compare with; without one a reward model is evaluated",
    RunInput.Role.MODEL_2: "for sample: a further policy",
    RunInput.Role.MODEL_3: "for sample: a further policy",
    RunInput.Role.MODEL_4: "for sample: a further policy",
}


class Command(BaseCommand):
    help = "Queue a run that trains from a snapshot; a worker of the run's queue carries it out."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG", help="slug of the project")
        parser.add_argument("--snapshot", type=int, metavar="ID", help="id of the snapshot (default: the newest)")
        parser.add_argument(
            "--kind", default="reward", help="reward, sft, dpo, ppo, evaluate or sample (default: reward)"
        )
        parser.add_argument(
            "--base-model",
            default="smollm2",
            help="smollm2, tiny, registry:ID, run:ID, a folder, or a hub id (default: smollm2)",
        )
        for role, about in INPUTS_HELP.items():
            parser.add_argument(f"--{role.replace('_', '-')}", default="", metavar="MODEL", help=about)
        parser.add_argument("--name", default="", help="name of the run (default: after the snapshot)")
        parser.add_argument("--user", metavar="NAME", help="on whose behalf (default: nobody's)")
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a setting of the recipe; repeatable, and for settings that take several values so is the name",
        )
        parser.add_argument("--preset", default="", metavar="NAME", help="named settings; --set goes before them")
        parser.add_argument("--queue", default="", help="kind of worker (default: one with the memory)")
        parser.add_argument("--processes", type=int, default=1, metavar="N", help="on each machine (default: 1)")
        parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines that train it (default: 1)")
        parser.add_argument("--follow", action="store_true", help="show a progress bar until the run has ended")
        parser.add_argument("--dry-run", action="store_true", help="check, say what it would need, start nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        try:
            asked = self._asked(project, options)
            if options["dry_run"]:
                _plan, estimate = look_ahead(**asked)
                if estimate.refusals:
                    raise Invalid("", fields=dict(estimate.refusals))
                self.stdout.write("".join(f"{line}\n" for line in lines_of(estimate)), ending="")
                self.stdout.write("Nothing is wrong with it. 0 runs were queued (dry run).")
                return
            run = start_run(started_by=_user(options["user"]), **asked)
        except Refused as refused:
            faults = "; ".join(f"{field}: {text}" for field, text in refused.fields.items())
            raise CommandError(faults or refused.message) from None
        self.stdout.write(f"Run {run.pk} was queued: {run.name}, from snapshot {run.snapshot}.")
        if options["follow"]:
            self._follow(run)

    def _asked(self, project: Project, options: dict[str, Any]) -> dict[str, Any]:
        _user(options["user"])
        return {
            "project": project,
            "snapshot": _snapshot(project, options["snapshot"]),
            "config": with_preset(options["kind"], options["preset"], _settings(options["set"])),
            "inputs": {role: options[role] for role in RunInput.Role.values},
            **{name: options[name] for name in ("kind", "base_model", "name", "queue", "processes", "nodes")},
        }

    def _follow(self, run: Run) -> None:
        with tqdm(total=None, unit="step", desc="queued") as bar:
            while not run.is_finished:
                time.sleep(LOOK_SECONDS)
                run.refresh_from_db(fields=["state", "step", "total_steps", "reason", "report"])
                bar.total = run.total_steps
                bar.set_description(run.state, refresh=False)
                bar.update(run.step - bar.n)
                bar.refresh()
        if run.state != Run.State.SUCCEEDED:
            raise CommandError(f"The run has {run.state}: {run.reason or 'no reason given'}")
        told = _told(run)
        self.stdout.write(f"The run succeeded after {run.step} steps: {told}.")


def _told(run: Run) -> str:
    """What a run's report says first."""
    if run.kind == Run.Kind.REWARD:
        accuracy = accuracy_of(run.report)
        return f"held-out accuracy {accuracy['value']:.1%}" if accuracy else "held-out accuracy unknown"
    figure = report_headline(run.report)
    return f"{figure.name} {figure.value}" if figure else "nothing held out"


def _user(name: str | None) -> User | None:
    if name is None:
        return None
    user = User.objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"There is no user {name}.")
    return user


def _snapshot(project: Project, snapshot_id: int | None) -> Snapshot:
    snapshots = trainable_snapshots(project)
    found = snapshots.first() if snapshot_id is None else Snapshot.objects.filter(pk=snapshot_id).first()
    if found is None:
        which = "no snapshot yet" if snapshot_id is None else f"no snapshot {snapshot_id}"
        raise CommandError(f"There is {which} in {project.slug}; manage.py create_snapshot makes one.")
    return found


def _settings(given: list[str]) -> dict[str, object]:
    settings: dict[str, object] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise CommandError(f"--set takes NAME=VALUE, not {one!r}.")
        name = name.replace("-", "_")
        before = settings.get(name)
        settings[name] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    return settings
