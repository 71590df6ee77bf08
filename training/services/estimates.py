"""Will it fit, how long will it take, and what is there to know before a run is queued: told, and nothing is made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.db.models import Avg, FloatField, Max
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotate.models import Project, Snapshot
from training.core.memory import LIBRARY_BYTES
from training.core.text_counts import BYTE_VOCABULARY, SplitTexts
from training.core.workload import Need, Task, need_of
from training.models import Run, RunMetric, Worker
from training.selectors_workers import living_workers
from training.services.model_facts import Facts, facts_of, has_chat_template, read_alike, trunk_refusal
from training.services.placement import offer_fault, queue_for, room_of
from training.services.run_inputs import BASE, Inputs, Named
from training.services.snapshot_texts import SnapshotTexts, texts_of

TRAINING = (Run.Kind.REWARD, Run.Kind.SFT, Run.Kind.DPO, Run.Kind.PPO)
# Fewer prompts to learn from are enough to try the line, and to learn nothing that holds.
FEW_PROMPTS = 50
# A run like this one: of so nearly as many parameters.
ALIKE = 0.1
RUNS_LOOKED_AT = 12
# Loading libraries and model, encoding, the report.
START_SECONDS = 30.0
# Operations a second, low and high, where no run has been timed: of one processor in float32, of one GPU in bfloat16.
OF_PROCESSOR = (4e9, 25e9)
OF_GPU = (15e12, 250e12)
# What one timed run says of the next.
SPREAD = 0.3


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long a run takes, at least and at most; ``runs`` timed runs say so, or with 0 the machine's kind alone."""

    low: float
    high: float
    runs: int


@dataclass(frozen=True, slots=True)
class Room:
    """Whether the workers of the queue that live now have the memory.

    ``workers`` live, ``fitting`` of them have room; ``largest_bytes`` is what a process has on the largest of them.
    """

    queue: str
    workers: int
    fitting: int
    largest_bytes: int
    on_gpu: bool


@dataclass(frozen=True)
class Estimate:
    """All that is told. ``need`` and ``seconds`` are None where they are not known, and ``why_unknown`` says why."""

    need: Need | None
    why_unknown: str
    seconds: Seconds | None
    room: Room
    exact: bool = True
    texts: Mapping[str, SplitTexts] = field(default_factory=dict)
    notices: Sequence[str] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)

    @property
    def process_bytes(self) -> int:
        """What a process takes at its peak, its libraries included; 0 where it is not known."""
        return 0 if self.need is None else self.need.peak_bytes + LIBRARY_BYTES


@dataclass(frozen=True)
class Plan:
    """A run whose settings and models have been checked, and which is not made yet; "" leaves the queue to the rule."""

    project: Project
    kind: str
    snapshot: Snapshot
    models: Inputs
    config: Mapping[str, Any]
    queue: str = ""
    processes: int = 1
    nodes: int = 1


def estimate_run(plan: Plan) -> Estimate:
    """What the run would need, from the disk and the database alone; neither is changed."""
    facts = {role: facts_of(one) for role, one in plan.models.named.items()}
    base = facts[BASE]
    texts = texts_of(plan.snapshot, bytewise=_is_bytewise(base))
    task = _task(plan, facts, texts)
    if not plan.queue:
        needed = None if task is None else needed_bytes(plan, need_of(task))
        plan = replace(plan, queue=queue_for(plan.config, needed=needed, processes=plan.processes))
    workers = list(living_workers(plan.queue))
    if task is None or base.size is None:
        unknown = base.why_unknown or _("The snapshot's file cannot be read from here.")
        if plan.kind not in TRAINING:
            unknown = _("Memory and time are told of runs that train.")
        found = Estimate(None, unknown, None, _room(plan, None, workers), texts=texts.splits if texts else {})
    else:
        need = need_of(task)
        found = Estimate(
            need, "", _seconds(plan, need, workers), _room(plan, need, workers), bool(texts and texts.exact),
            texts.splits if texts else {},
        )  # fmt: skip
    notices = [*_about_room(plan, found), *_about_texts(plan, found), *_about_models(plan, facts)]
    return Estimate(
        found.need, found.why_unknown, found.seconds, found.room, found.exact, found.texts, notices,
        _impossible(plan, found, workers),
    )  # fmt: skip


def _is_bytewise(base: Facts) -> bool:
    return base.size is not None and base.size.vocabulary <= BYTE_VOCABULARY


def _task(plan: Plan, facts: Mapping[str, Facts], texts: SnapshotTexts | None) -> Task | None:
    size = facts[BASE].size
    if size is None or texts is None or plan.kind not in TRAINING:
        return None
    scorers = [one.size for role, one in facts.items() if role != BASE and one.size is not None]
    shares = plan.kind == Run.Kind.PPO and not _trunk_refusal(plan)
    return Task(plan.kind, plan.config, size, texts.splits, scorers, shares)


def _trunk_refusal(plan: Plan) -> str:
    named = plan.models.named
    return trunk_refusal(
        base=named[BASE], reward=named.get("reward_model"), lora_rank=plan.config["lora_rank"],
        trunk=plan.config["trunk"],
    )  # fmt: skip


# --- room -------------------------------------------------------------------------------------------------------------


def _room(plan: Plan, need: Need | None, workers: Sequence[Worker]) -> Room:
    rooms = [room_of(worker, processes=plan.processes, device=str(plan.config["device"])) for worker in workers]
    wanted = 0 if need is None else needed_bytes(plan, need)
    fitting = sum(wanted <= room for room in rooms)
    return Room(plan.queue, len(workers), fitting, max(rooms, default=0), _on_gpu(plan, workers))


def _on_gpu(plan: Plan, workers: Sequence[Worker]) -> bool:
    return plan.config["device"] != "cpu" and any(worker.gpus for worker in workers)


def needed_bytes(plan: Plan, need: Need) -> int:
    """Of a process with its libraries."""
    return _peak(plan, need) + LIBRARY_BYTES


def _peak(plan: Plan, need: Need) -> int:
    """Sharded over several processes, each keeps its part of what lies still."""
    saved = need.rest_bytes * (1 - 1 / (plan.processes * plan.nodes)) if plan.config.get("shard") else 0
    return int(need.peak_bytes - saved)


def _impossible(plan: Plan, found: Estimate, workers: Sequence[Worker]) -> dict[str, str]:
    """What cannot be: more processes than any worker starts, nothing to train from, or weights, gradients and optimiser
    that alone are more than any worker has."""
    if fault := offer_fault(workers, queue=plan.queue, processes=plan.processes):
        return {"processes": fault}
    if found.need is not None and found.exact and not found.need.steps:
        return {"snapshot": _("This snapshot has nothing to train from: no such line in its train split.")}
    if found.need is None or not workers or plan.config.get("shard"):
        return {}
    if found.need.rest_bytes <= found.room.largest_bytes:
        return {}
    words = _(
        "Weights, gradients and optimiser alone take %(needed)s; the largest worker of %(queue)s has %(has)s. Choose "
        "a LoRA rank, a smaller model or another queue."
    )
    told = {"needed": gib(found.need.rest_bytes), "queue": plan.queue, "has": gib(found.room.largest_bytes)}
    return {BASE: words % told}


def lines_of(found: Estimate) -> list[str]:
    """The estimate in lines for a terminal."""
    if found.need is None:
        return [found.why_unknown, *found.notices]
    need, seconds, room = found.need, found.seconds, found.room
    told = [
        f"about {gib(found.process_bytes)} of memory a process at the peak; "
        f"{room.fitting} of {room.workers} workers of {room.queue} that are alive have it",
        f"{need.steps} steps, about {need.tokens:,.0f} tokens" + ("" if found.exact else " (told from a sample)"),
    ]
    if seconds is not None:
        basis = f"by {seconds.runs} runs like this one" if seconds.runs else "roughly: no run like it has been timed"
        told.append(f"{seconds.low / 60:.1f} to {seconds.high / 60:.1f} minutes, {basis}")
    return [*told, *found.notices]


def gib(size: float) -> str:
    """A size in GiB, for people."""
    return f"{size / 2**30:.1f} GiB"


# --- time -------------------------------------------------------------------------------------------------------------


def _seconds(plan: Plan, need: Need, workers: Sequence[Worker]) -> Seconds | None:
    """From runs of the kind on a model of this size, else from what machines of the queue can do at worst and best."""
    if not need.steps:
        return None
    rates = _timed_rates(plan, need)
    if rates:
        low, high = min(rates) * (1 - SPREAD), max(rates) * (1 + SPREAD)
        return Seconds(need.operations / high + START_SECONDS / 2, need.operations / low + START_SECONDS, len(rates))
    if not workers:
        return None
    on_gpu = _on_gpu(plan, workers)
    processors = max(worker.processors for worker in workers)
    devices = plan.nodes * (plan.processes if on_gpu else processors)
    slow, fast = OF_GPU if on_gpu else OF_PROCESSOR
    operations = need.operations
    return Seconds(operations / (fast * devices) + START_SECONDS / 2, operations / (slow * devices) + START_SECONDS, 0)


def _timed_rates(plan: Plan, need: Need) -> list[float]:
    """Operations a second of the last succeeded runs of this kind and size, in this queue and project."""
    runs = Run.objects.filter(
        project=plan.project, kind=plan.kind, queue=plan.queue, state=Run.State.SUCCEEDED,
        processes=plan.processes, nodes=plan.nodes,
    ).select_related("snapshot", "base_version")  # fmt: skip
    wanted = facts_of(plan.models.named[BASE]).size
    rates = []
    for run in runs.order_by("-pk")[:RUNS_LOOKED_AT]:
        done = _need_of_run(run)
        size = facts_of(Named(run.base_model, run.base_version)).size
        timed = RunMetric.objects.filter(run=run).aggregate(
            mean=Avg(Cast(KeyTextTransform("time/step_seconds", "values"), FloatField())), steps=Max("step")
        )
        if done is None or size is None or wanted is None or not timed["mean"] or not done.steps:
            continue
        if abs(size.parameters - wanted.parameters) <= ALIKE * wanted.parameters:
            rates.append(done.operations / done.steps / timed["mean"])
    return [rate for rate in rates[:3] if rate > 0 and math.isfinite(rate)]


def _need_of_run(run: Run) -> Need | None:
    """What the same arithmetic says of a run that is over."""
    named = Named(run.base_model, run.base_version)
    facts = {BASE: facts_of(named)}
    size = facts[BASE].size
    if run.snapshot is None or size is None or run.snapshot.state != Snapshot.State.FROZEN:
        return None
    texts = texts_of(run.snapshot, bytewise=size.vocabulary <= BYTE_VOCABULARY)
    return None if texts is None else need_of(Task(run.kind, run.config, size, texts.splits))


# --- what there is to know, each in one line --------------------------------------------------------------------------


def _about_room(plan: Plan, found: Estimate) -> list[str]:
    room = found.room
    if not room.workers:
        words = _("No worker serves %(queue)s now: the run waits until one is started.")
        return [words % {"queue": room.queue}]
    if room.workers < plan.nodes:
        words = _(
            "%(count)d workers of %(queue)s are alive, and %(nodes)d are to train it together: it waits for them."
        )
        return [words % {"count": room.workers, "queue": room.queue, "nodes": plan.nodes}]
    if found.need is None or room.fitting:
        return []
    words = _(
        "About %(needed)s at the peak; the largest worker of %(queue)s that is alive has %(has)s. A LoRA rank, fewer "
        "micro-batch tokens or gradient checkpointing take less."
    )
    return [
        words % {"needed": gib(needed_bytes(plan, found.need)), "queue": room.queue, "has": gib(room.largest_bytes)}
    ]


def _about_texts(plan: Plan, found: Estimate) -> list[str]:
    if plan.kind not in TRAINING:
        return []
    name = {Run.Kind.SFT: "answers", Run.Kind.PPO: "prompts"}.get(Run.Kind(plan.kind), "ranked")
    rows = {split: getattr(texts, name).rows for split, texts in found.texts.items()}
    notices = []
    if found.texts and 0 < (count := rows.get("train", 0)) < FEW_PROMPTS:
        words = ngettext(
            "%(count)d prompt to train from is enough to try the line, not to learn from: collect more.",
            "%(count)d prompts to train from are enough to try the line, not to learn from: collect more.",
            count,
        )
        notices.append(words % {"count": count})
    if found.texts and not rows.get("validation"):
        notices.append(_("Nothing is held out for validation: there will be no curve and no held-out result."))
    limit = plan.config["max_length"]
    if found.need is not None and found.need.longest >= limit:
        words = _("The longest texts may be over %(limit)d tokens, and are then dropped: see Max length.")
        notices.append(words % {"limit": limit})
    return notices


def _about_models(plan: Plan, facts: Mapping[str, Facts]) -> list[str]:
    notices = []
    folder = facts[BASE].folder
    if folder is not None and not has_chat_template(folder):
        notices.append(
            _("The model brings no chat template: Plackett's plain one is used, and is saved with what is trained.")
        )
    for role, one in facts.items():
        if role == BASE or folder is None or one.folder is None or read_alike(folder, one.folder):
            continue
        words = _(
            "The %(role)s has another tokenizer or chat template than the policy: responses are decoded and put into "
            "its own template to be scored."
        )
        notices.append(words % {"role": _("reward model") if role == "reward_model" else _("judge")})
    if plan.kind == Run.Kind.PPO:
        if refusal := _trunk_refusal(plan):
            notices.append(_("Each model keeps weights of its own: %(reason)s.") % {"reason": refusal})
        else:
            notices.append(_("Policy, value and reward model share one frozen base: less memory."))
    return notices
