"""What there is to know before a run is queued, each in one line that says what to do."""

from collections.abc import Mapping, Sequence

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from training.models import Run, Worker
from training.services.model_facts import Facts, has_chat_template, read_alike
from training.services.placement import offer_fault
from training.services.plans import TRAINING_KINDS, Estimate, Plan, gib, needed_bytes, why_no_shared_trunk
from training.services.run_inputs import BASE

# The models besides the base that read what it wrote.
READERS = ("reward_model", "judge")
# Fewer prompts to learn from are enough to try the line, and to learn nothing that holds.
FEW_PROMPTS = 50


def notices_about(plan: Plan, found: Estimate, facts: Mapping[str, Facts]) -> list[str]:
    """What is worth knowing."""
    return [*_about_room(plan, found), *_about_texts(plan, found), *_about_models(plan, facts)]


def impossibilities(plan: Plan, found: Estimate, workers: Sequence[Worker]) -> dict[str, str]:
    """What cannot be: more processes than any worker starts, nothing to train from, or weights, gradients and optimiser
    that alone are more than any worker has."""
    if fault := offer_fault(workers, queue=plan.queue, processes=plan.processes):
        return {"processes": fault}
    if found.need is not None and found.exact and not found.need.steps:
        if plan.kind in TRAINING_KINDS:
            return {"snapshot": _("This snapshot has nothing to train from: no such line in its train split.")}
        return {"snapshot": _("This snapshot has no such line in the split %(split)s.") % plan.config}
    if found.need is None or not workers or plan.config.get("shard"):
        return {}
    if found.need.rest_bytes <= found.room.largest_bytes:
        return {}
    words = _(
        "Weights, gradients and optimiser alone take %(needed)s; the largest worker of %(queue)s has %(has)s. Choose "
        "a LoRA rank, a smaller model or another queue."
    )
    if plan.kind not in TRAINING_KINDS:
        words = _(
            "The weights alone take %(needed)s; the largest worker of %(queue)s has %(has)s. Choose a smaller model or "
            "another queue."
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


def _about_room(plan: Plan, found: Estimate) -> list[str]:
    room = found.room
    if not room.workers:
        words = _("No worker serves %(queue)s now: the run waits until one is started.")
        return [words % {"queue": room.queue}]
    if room.workers < plan.nodes:
        words = _("%(nodes)d workers are to train it together, and %(count)d of %(queue)s live: it waits for the rest.")
        return [words % {"count": room.workers, "queue": room.queue, "nodes": plan.nodes}]
    if found.need is None or room.fitting:
        return []
    words = _(
        "About %(needed)s at the peak; the largest worker of %(queue)s that is alive has %(has)s. A LoRA rank, fewer "
        "micro-batch tokens or gradient checkpointing take less."
    )
    if plan.kind not in TRAINING_KINDS:
        words = _(
            "About %(needed)s at the peak; the largest worker of %(queue)s that is alive has %(has)s. Fewer "
            "micro-batch tokens or shorter responses take less."
        )
    return [
        words % {"needed": gib(needed_bytes(plan, found.need)), "queue": room.queue, "has": gib(room.largest_bytes)}
    ]


def _about_texts(plan: Plan, found: Estimate) -> list[str]:
    if plan.kind not in TRAINING_KINDS:
        if found.need is None or "max_response_length" not in plan.config:
            return []
        return [_("Told for responses that all get as long as they may; most end earlier, and it is done sooner.")]
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
        if role not in READERS or folder is None or one.folder is None or read_alike(folder, one.folder):
            continue
        words = _(
            "The %(role)s has another tokenizer or chat template than the policy: responses are decoded and put into "
            "its own template to be scored."
        )
        notices.append(words % {"role": _("reward model") if role == "reward_model" else _("judge")})
    if plan.kind == Run.Kind.PPO:
        if refusal := why_no_shared_trunk(plan):
            notices.append(_("Each model keeps weights of its own: %(reason)s.") % {"reason": refusal})
        else:
            notices.append(_("Policy, value and reward model share one frozen base: less memory."))
    return notices
