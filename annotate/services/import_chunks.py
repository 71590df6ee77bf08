"""Writing one chunk of imported records: what is new is collected first, then copied in, queue and feed last."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db.models import Model
from django.utils import timezone

from annotate.assignment import lane_of
from annotate.interchange.records import BadRecord, ImportedRecord, ImportedResponse
from annotate.leaks import identity_leak
from annotate.models import (
    Change,
    Counter,
    Demonstration,
    Entry,
    IdentityLeak,
    ImportBatch,
    Project,
    ProjectVersion,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Slot,
    SplitGroup,
    TaskResponse,
    User,
)
from annotate.preferences import Answer, split_for_group
from annotate.services.copying import Ids, RowMaker, copy_rows
from annotate.services.counters import draw, record_changes
from annotate.services.import_known import (
    Group,
    KnownPrompt,
    KnownRanking,
    content_sha256,
    group_key_of,
    key_of,
    known_groups,
    known_prompts,
    known_rankings,
    known_users,
    sha256_of,
)
from annotate.services.import_reports import Fault, ImportReport
from annotate.services.import_rules import (
    Annotator,
    NotTaken,
    annotator_of,
    answer_of,
    check_follows,
    check_same,
    check_split,
    compare,
    exported_from_here,
    kept_of,
    language_of,
    original_of,
    refuse_lone_repeat,
    tags_of,
    task_key,
    username_of,
)
from annotate.services.rankings import answer_sha256

#: The order of writing: referenced rows first.
TABLES: tuple[type[Model], ...] = (
    SplitGroup, User, Prompt, Response, IdentityLeak, RankingTask, TaskResponse, Demonstration, Ranking, Entry,
)  # fmt: skip
_PLURALS: dict[type[Model], str] = {
    SplitGroup: "split_groups", User: "annotators", Prompt: "prompts", Response: "responses",
    IdentityLeak: "identity_leaks", RankingTask: "tasks",
    TaskResponse: "task_responses", Demonstration: "demonstrations", Ranking: "rankings", Entry: "entries",
}  # fmt: skip
_ROWS: dict[type[Model], RowMaker] = {Slot: RowMaker(Slot)} | {model: RowMaker(model) for model in TABLES}


@dataclass(slots=True)
class ImportPlan:
    """What holds for every chunk of one import. `users` and `batch_saved` are set as chunks commit."""

    project: Project
    version: ProjectVersion
    batch: ImportBatch
    overlap: int | None
    priority: int
    dry_run: bool
    ids: Ids
    users: dict[str, int] = field(default_factory=dict)
    batch_saved: bool = False


class Chunk:
    """One transaction's worth of records. To try again, make a new one."""

    def __init__(self, plan: ImportPlan, records: Sequence[ImportedRecord | BadRecord]) -> None:
        self.plan = plan
        self.report = ImportReport()
        self._records = records
        self._now = timezone.now()
        self._rows: dict[type[Model], list[Any]] = defaultdict(list)
        self._places: list[tuple[int, int]] = []  # task, number
        self._changes: list[dict[str, Any]] = []
        good = [record for record in records if isinstance(record, ImportedRecord)]
        groups = {sha256_of(group_key_of(record)) for record in good}
        self._prompts = known_prompts(project=plan.project, records=good)
        self._groups = known_groups(project=plan.project, hashes=groups)
        self._rankings = known_rankings(self._prompts.values())
        self.users = dict(plan.users)
        self._look_up_users({username_of(plan.project, record) for record in good if record.ranking is not None})

    def write(self) -> bool:
        """Writes what is new and returns whether anything was. Locks the offer and change counters, at the end.

        Must run in the transaction in which the chunk was made.
        """
        for record in self._records:
            self._take(record)
        if not any(self._rows.values()):
            return False
        if not self.plan.batch_saved:
            self.plan.batch.save(force_insert=True)
        for model in TABLES:
            if rows := self._rows[model]:
                self.report.rows[_PLURALS[model]] += copy_rows(model, rows)
        if not self.plan.dry_run:
            self._offer_slots()
            self._record_rankings()
        return True

    # --- records, one by one ----------------------------------------------------------------------------------------

    def _take(self, record: ImportedRecord | BadRecord) -> None:
        if isinstance(record, BadRecord) and not record.fault:
            self.report.count_left_out(record.reason)
        elif isinstance(record, BadRecord):
            self._refuse(record, "skipped", record.reason)
        else:
            try:
                self.report.count_taken(new=self._add(record))
            except NotTaken as why:
                self._refuse(record, why.kind, str(why))

    def _refuse(self, record: ImportedRecord | BadRecord, kind: str, reason: str) -> None:
        self.report.count_fault(Fault(self.plan.batch.source, record.line, record.item, kind, reason))

    def _add(self, record: ImportedRecord) -> bool:
        """Collects what the record brings; True if that is anything new.

        Raises:
            NotTaken: nothing of the record was collected.
        """
        prompt = self._prompts.get(key_of(record))
        refuse_lone_repeat(prompt, record)
        if prompt is None:
            self._add_parts(self._new_prompt(record), record)
            return True
        check_same(prompt, record)
        return self._add_parts(prompt, record)

    def _add_parts(self, prompt: KnownPrompt, record: ImportedRecord) -> bool:
        if record.type == "demonstration":
            return self._add_demonstration(prompt, record)
        if record.type == "ranking" and record.ranking is not None:
            return self._add_ranking(prompt, record)
        if record.type == "ranking" and task_key(prompt, record) not in prompt.tasks:
            self._new_task(prompt, record)
            return True
        return False

    def _add_demonstration(self, prompt: KnownPrompt, record: ImportedRecord) -> bool:
        text = record.responses[0].text
        sha256 = sha256_of(text)
        if (withdrawn := prompt.demonstrations.get(sha256)) is not None:
            if withdrawn:
                raise NotTaken("the demonstration was withdrawn here")
            return False
        prompt.demonstrations[sha256] = False
        self._put(Demonstration, project=self.plan.project, prompt_id=prompt.id, text=text, text_sha256=sha256)
        return True

    def _add_ranking(self, prompt: KnownPrompt, record: ImportedRecord) -> bool:
        """Collects the ranking, if it is new, as the next revision of its annotator's on this task."""
        answer = answer_of(record, prompt.responses)
        sha256 = answer_sha256(answer)
        task_id = prompt.tasks.get(task_key(prompt, record))
        known = self._rankings[task_id] if task_id else []
        if any(one.withdrawn and one.content_sha256 == sha256 for one in known):
            raise NotTaken("the ranking was withdrawn here")
        if ours := exported_from_here(self.plan.project, record, known):
            return compare(ours, sha256, record)
        annotator = annotator_of(self.plan.project, record, known)
        mine = [one for one in known if one.username == annotator.username]
        if same := next((one for one in mine if one.given_revision == record.revision), None):
            return compare(same, sha256, record)
        last = mine[-1] if mine else None
        check_follows(last, record)
        task_id = task_id or self._new_task(prompt, record)
        self._new_ranking(prompt, task_id, self._user(annotator), answer, record, last)
        return True

    # --- new rows ---------------------------------------------------------------------------------------------------

    def _put(self, model: type[Model], /, **values: Any) -> int:
        pk = self.plan.ids.next(model)
        self._rows[model].append(_ROWS[model]({"id": pk} | values))
        return pk

    def _group(self, record: ImportedRecord) -> Group:
        """The record's split group, made if it is new. A split given by the record decides a new group."""
        key = group_key_of(record)
        sha256 = sha256_of(key)
        if group := self._groups.get(sha256):
            check_split(group, record)
            return group
        split = record.split or split_for_group(key)
        # The first user message itself is not stored a second time: a withdrawal could not blank it here.
        stored = record.split_group if record.split_group is not None else ""
        pk = self._put(SplitGroup, project=self.plan.project, key=stored, key_sha256=sha256, split=split)
        self._groups[sha256] = Group(pk, sha256, split)
        return self._groups[sha256]

    def _new_prompt(self, record: ImportedRecord) -> KnownPrompt:
        group = self._group(record)
        messages = [dict(message) for message in record.prompt]
        sha256 = content_sha256(record)
        pk = self._put(
            Prompt,
            project=self.plan.project,
            batch=self.plan.batch,
            external_id=record.external_id,
            content_sha256=sha256,
            messages=messages,
            split_group_id=group.id,
            answer=record.answer,
            tests=record.tests,
            language=language_of(record),
            tags=tags_of(record),
            extra={} if record.ranking is not None else dict(record.extra),
        )
        known = self._prompts[key_of(record)] = KnownPrompt(pk, sha256, messages, group)
        if record.type == "ranking":
            known.responses = {response.id: self._new_response(pk, response) for response in record.responses}
        return known

    def _new_response(self, prompt_id: int, response: ImportedResponse) -> int:
        pk = self._put(
            Response,
            prompt_id=prompt_id,
            key=response.id,
            text=response.text,
            thinking=response.thinking,
            model=response.model or "",
            settings=dict(response.settings or {}),
            extra=dict(response.extra),
            text_sha256=sha256_of(response.text),
        )
        if phrase := identity_leak(response.text):
            self._put(IdentityLeak, project=self.plan.project, response_id=pk, phrase=phrase)
        return pk

    def _new_task(self, prompt: KnownPrompt, record: ImportedRecord) -> int:
        places = self.plan.overlap
        if places is None:
            places = self.plan.project.overlap if record.ranking is None else 0
        key = task_key(prompt, record)
        repeat_of = original_of(prompt, record) if record.kind == "repeat" else None
        task_id = self._put(
            RankingTask,
            project=self.plan.project,
            prompt_id=prompt.id,
            kind=record.kind,
            overlap=0 if repeat_of else places,
            priority=self.plan.priority,
            repeat_of_id=repeat_of,
        )
        for response_id in sorted(key[1]):
            self._put(TaskResponse, task_id=task_id, prompt_id=prompt.id, response_id=response_id)
        prompt.tasks[key] = task_id
        self._places += [(task_id, number) for number in range(1, (0 if repeat_of else places) + 1)]
        return task_id

    def _new_ranking(
        self,
        prompt: KnownPrompt,
        task_id: int,
        user: Annotator,
        answer: Answer,
        record: ImportedRecord,
        last: KnownRanking | None,
    ) -> None:
        revision = last.revision + 1 if last else 1
        sha256 = answer_sha256(answer)
        pk = self._put(
            Ranking,
            project=self.plan.project,
            task_id=task_id,
            annotator_id=self.users[user.username],
            version=self.plan.version,
            revision=revision,
            supersedes_id=last.id if last else None,
            counted=record.counted,
            source=Ranking.Source.IMPORT,
            strengths=list(answer.strengths or ()),
            all_bad=answer.all_bad,
            ratings={name: dict(values) for name, values in answer.ratings.items()},
            flags={name: list(flags) for name, flags in answer.flags.items() if flags},
            rationale=answer.rationale,
            rewrite_of_id=int(answer.rewrite.of) if answer.rewrite else None,
            rewrite_text=answer.rewrite.text if answer.rewrite else None,
            content_sha256=sha256,
            presented_order=[prompt.responses[key] for key in record.presented_order or ()],
            seconds=record.seconds,
            extra=kept_of(record, revision),
            submitted_at=record.submitted_at or self._now,
        )
        kind = Change.Kind.RANKING if revision == 1 else Change.Kind.REVISION
        self._changes.append({"kind": kind, "ranking_id": pk})
        tiers = {int(name): number for number, tier in enumerate(answer.ranking, start=1) for name in tier}
        for response_id in sorted(task_key(prompt, record)[1]):
            self._put(Entry, ranking_id=pk, task_id=task_id, response_id=response_id, tier=tiers.get(response_id))
        self._rankings[task_id].append(
            KnownRanking(
                id=pk,
                annotator_id=self.users[user.username],
                username=user.username,
                revision=revision,
                given_revision=record.revision,
                given_id=record.id,
                content_sha256=sha256,
                counted=record.counted,
                withdrawn=False,
            )
        )

    # --- annotators -------------------------------------------------------------------------------------------------

    def _look_up_users(self, usernames: set[str]) -> None:
        self.users |= known_users(usernames - self.users.keys())

    def _user(self, annotator: Annotator) -> Annotator:
        """Makes the user who stands for an annotator, if there is none."""
        if annotator.username not in self.users:
            self._look_up_users({annotator.username})
        if annotator.username not in self.users:
            self.users[annotator.username] = self._put(
                User,
                username=annotator.username,
                first_name=annotator.name,
                kind=annotator.kind,
                is_active=False,
                password=make_password(None),
            )
        return annotator

    # --- the end of the transaction ---------------------------------------------------------------------------------

    def _offer_slots(self) -> None:
        if not self._places:
            return
        offer = draw(project=self.plan.project, name=Counter.Name.OFFER, count=len(self._places))
        lane = lane_of(priority=self.plan.priority, reoffered=False)
        for place, (task, number) in enumerate(self._places, start=offer):
            self._put(Slot, task_id=task, project=self.plan.project, number=number, lane=lane, offer=place)
        copy_rows(Slot, self._rows[Slot])

    def _record_rankings(self) -> None:
        record_changes(project=self.plan.project, changes=self._changes)
