"""Will it fit, how long will it take, and what is there to know before a run is queued: told, and nothing is made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.db.models import Avg, FloatField, Max
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.utils.translation import gettext as _

from annotate.models import Snapshot
from training.core.answering_work import Answering, need_of_answers, need_of_scores
from training.core.model_sizes import ModelSize
from training.core.text_counts import BYTE_VOCABULARY
from training.core.workload import Need, Task, need_of
from training.models import Run, RunMetric, Worker
from training.recipes.configs import RECIPES, describe
from training.selectors_workers import living_workers
from training.services.model_facts import Facts, facts_of
from training.services.notices import impossibilities, notices_about
from training.services.placement import queue_for, room_of
from training.services.plans import TRAINING_KINDS, Estimate, Plan, Room, Seconds, needed_bytes, why_no_shared_trunk
from training.services.run_inputs import BASE, Named
from training.services.run_settings import EVALUATE_POLICY, EVALUATE_REWARD, OTHER_MODELS, Role, recipe_of
from training.services.snapshot_texts import SnapshotTexts, texts_of

# A run like this one: of so nearly as many parameters.
ALIKE = 0.1
RUNS_LOOKED_AT = 12
# Loading libraries and model, encoding, the report.
START_SECONDS = 30.0
# Operations a second, low and high, where no run has been timed: of one processor in float32, of one GPU in bfloat16.
OF_PROCESSOR = (4e9, 25e9)
OF_GPU = (15e12, 250e12)
# Responses of the baseline among which one is chosen; as training.recipes.comparison has it.
BEST_OF = 4
# Where no run has been timed, responses may be so much shorter on average than they are told to be at most.
SHARE_OF_LENGTH = 0.25
# What one timed run says of the next.
SPREAD = 0.3


def estimate_run(plan: Plan) -> Estimate:
    """What the run would need, from the disk and the database alone; neither is changed."""
    facts = {role: facts_of(one) for role, one in plan.models.named.items()}
    base = facts[BASE]
    texts = texts_of(plan.snapshot, bytewise=_is_bytewise(base))
    need = _need(plan, facts, texts)
    if not plan.queue:
        needed = None if need is None else needed_bytes(plan, need)
        plan = replace(plan, queue=queue_for(plan.config, needed=needed, processes=plan.processes))
    workers = list(living_workers(plan.queue))
    if need is None:
        unknown = base.why_unknown
        if not unknown and texts is None:
            unknown = _("The snapshot's file cannot be read from here.")
        unknown = unknown or next((one.why_unknown for one in facts.values() if one.why_unknown), "")
        found = Estimate(None, unknown, None, _room(plan, None, workers), texts=texts.splits if texts else {})
    else:
        found = Estimate(
            need, "", _seconds(plan, need, workers), _room(plan, need, workers), bool(texts and texts.exact),
            texts.splits if texts else {},
        )  # fmt: skip
    notices = notices_about(plan, found, facts)
    return Estimate(
        found.need, found.why_unknown, found.seconds, found.room, found.exact, found.texts, notices,
        impossibilities(plan, found, workers),
    )  # fmt: skip


def _is_bytewise(base: Facts) -> bool:
    return base.size is not None and base.size.vocabulary <= BYTE_VOCABULARY


def _need(plan: Plan, facts: Mapping[str, Facts], texts: SnapshotTexts | None) -> Need | None:
    if texts is None:
        return None
    recipe = recipe_of(plan.kind, plan.models.named)
    shares = plan.kind == Run.Kind.PPO and not why_no_shared_trunk(plan)
    return _need_of(recipe, plan.config, {role: one.size for role, one in facts.items()}, texts, shares=shares)


def _need_of(
    recipe: str,
    config: Mapping[str, Any],
    sizes: Mapping[str, ModelSize | None],
    texts: SnapshotTexts,
    *,
    shares: bool = False,
) -> Need | None:
    """What a run of the recipe needs; None where the size of a model is not known without which it cannot be told.

    Args:
        sizes: of its models, by role.
        shares: see ``Task.shares_trunk``.
    """
    size = sizes[BASE]
    if size is None:
        return None
    if recipe == EVALUATE_REWARD:
        return need_of_scores(config, size, texts.splits)
    scorers = [one for role, one in sizes.items() if role in (Role.REWARD, Role.JUDGE) and one is not None]
    if recipe not in (EVALUATE_POLICY, Run.Kind.SAMPLE):
        return need_of(Task(recipe, config, size, texts.splits, scorers, shares))
    others = {role: one for role, one in sizes.items() if role == Role.BASELINE or role in OTHER_MODELS}
    if any(one is None for one in sizes.values()):
        return None
    each = 1 if recipe == EVALUATE_POLICY else config["samples_per_prompt"]
    # The baseline is asked more often, to see what choosing among its responses is worth.
    asked = {BASE: each, **{role: 1 + BEST_OF if role == Role.BASELINE else each for role in others}}
    speakers = [(one, asked[role]) for role, one in sizes.items() if role in asked and one is not None]
    return need_of_answers(Answering(config, speakers, scorers, texts.splits))


# --- room -------------------------------------------------------------------------------------------------------------


def _room(plan: Plan, need: Need | None, workers: Sequence[Worker]) -> Room:
    rooms = [room_of(worker, processes=plan.processes, device=str(plan.config["device"])) for worker in workers]
    wanted = 0 if need is None else needed_bytes(plan, need)
    fitting = sum(wanted <= room for room in rooms)
    return Room(plan.queue, len(workers), fitting, max(rooms, default=0), _on_gpu(plan, workers))


def _on_gpu(plan: Plan, workers: Sequence[Worker]) -> bool:
    return plan.config["device"] != "cpu" and any(worker.gpus for worker in workers)


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
    if plan.kind not in TRAINING_KINDS:
        fast /= SHARE_OF_LENGTH
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
    named = {one.role: Named(one.name, one.version) for one in run.inputs.select_related("version")}
    facts = {role: facts_of(one) for role, one in {BASE: Named(run.base_model, run.base_version), **named}.items()}
    if run.snapshot is None or run.snapshot.state != Snapshot.State.FROZEN:
        return None
    texts, recipe = texts_of(run.snapshot, bytewise=_is_bytewise(facts[BASE])), recipe_of(run.kind, named)
    if texts is None:
        return None
    # A run of an earlier version lacks what has been added since.
    defaults = {field.name: field.default for field in describe(RECIPES[recipe])}
    return _need_of(recipe, defaults | run.config, {role: one.size for role, one in facts.items()}, texts)
