"""Withdraws what a person wrote, or everything that holds a phrase."""

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Exists, OuterRef, Q, QuerySet

from annotate.errors import Conflict, Refused
from annotate.management.progress import bar, project_of
from annotate.models import Draft, Project, Ranking, Review, Skip, TaskFlag, User
from annotate.selectors.phrases import Found, Place, find_phrase
from annotate.selectors.withdrawals import Reach, annotator_named, reach_of_annotator
from annotate.services.withdrawals import check_reason, withdraw_found
from annotate.services.withdrawn_people import withdraw_annotator


class Command(BaseCommand):
    help = (
        "Withdraw everything that a person wrote, or everything that holds a phrase: texts are blanked, exports say "
        "so, snapshots that hold any of it are withdrawn. It cannot be undone; --dry-run counts first. What broke off "
        "goes on when it is called again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", metavar="SLUG", help="Without it, with --annotator: every project.")
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--annotator", metavar="NAME", help="A user name, or a pseudonym of the project's exports.")
        what.add_argument("--text", metavar="PHRASE", help="An exact piece of text, capitals and all.")
        parser.add_argument("--key", default="", help="The export key that the pseudonym is of.")
        parser.add_argument("--reason", default="", help="For the log of withdrawals, where it is kept.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be withdrawn and write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            check_reason(options["reason"], without=options["text"] or "")
            if options["annotator"]:
                for project in self._projects(options):
                    self._annotator(project, options)
            elif options["project"]:
                self._text(project_of(options["project"]), options)
            else:
                raise CommandError("--text needs --project.")
        except Refused as refused:
            raise CommandError(" ".join([refused.message, *refused.fields.values()])) from None

    def _projects(self, options: dict[str, Any]) -> list[Project]:
        if options["project"]:
            return [project_of(options["project"])]
        user = User.objects.filter(username=options["annotator"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['annotator']!r}; a pseudonym needs --project.")
        found = list(_written_in(user))
        if not found:
            self.stdout.write(f"{user.username} has written nothing.")
        return found

    def _annotator(self, project: Project, options: dict[str, Any]) -> None:
        annotator = annotator_named(project, options["annotator"], key=options["key"])
        reach = reach_of_annotator(project, annotator)
        if options["dry_run"]:
            self.stdout.write(f"{project.slug}: {annotator.username}, would be withdrawn: {_listed(reach.counts)}")
            self._say_reached(reach)
            return
        quiet = options["verbosity"] == 0
        total = reach.counts["rankings"]
        with bar(description="Withdrawing", total=total, unit=" rankings", quiet=quiet) as progress:
            reason = options["reason"]
            done = withdraw_annotator(project=project, annotator=annotator, reason=reason, progress=progress.update)
        self.stdout.write(f"{project.slug}: {annotator.username}, withdrawn: {_listed(done.counts)}")
        self._say_reached(reach)

    def _text(self, project: Project, options: dict[str, Any]) -> None:
        counts: Counter[str] = Counter()
        place: Place | None = Place()
        with bar(description="Looking", unit=" found", quiet=options["verbosity"] == 0) as progress:
            while place is not None:
                found, place = find_phrase(project, options["text"], at=place)
                for one in found:
                    counts[one.kind] += options["dry_run"] or self._withdraw(project, one, options["reason"])
                progress.update(len(found))
        would = "would be withdrawn" if options["dry_run"] else "withdrawn"
        self.stdout.write(f"{project.slug}: {would}: {_listed({f'{kind}s': counts[kind] for kind in sorted(counts)})}")

    def _withdraw(self, project: Project, one: Found, reason: str) -> bool:
        try:
            return withdraw_found(project=project, found=one, reason=reason) is not None
        except Conflict as refused:  # somebody was handing the task in or back
            raise CommandError(f"{one.kind} {one.id}: {refused.message} What came before it is done.") from None

    def _say_reached(self, reach: Reach) -> None:
        for snapshot in reach.snapshots:
            self.stdout.write(f"  snapshot {snapshot.pk} {snapshot.name!r} holds some of it")
        for model in reach.models:
            self.stdout.write(f"  model {model} was trained from some of it")


def _listed(counts: dict[str, int]) -> str:
    said = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    return ", ".join(said) or "nothing"


def _written_in(user: User) -> QuerySet[Project]:
    """The projects in which the person ranked, skipped, flagged, reviewed or drafted."""
    of_tasks = {"task__project": OuterRef("pk"), "annotator": user}
    said = Q(Exists(Ranking.objects.filter(project=OuterRef("pk"), annotator=user)))
    said |= Exists(Skip.objects.filter(**of_tasks)) | Exists(TaskFlag.objects.filter(**of_tasks))
    said |= Q(Exists(Draft.objects.filter(**of_tasks)))
    said |= Q(Exists(Review.objects.filter(ranking__project=OuterRef("pk"), reviewer=user)))
    return Project.objects.filter(said).order_by("slug")
