"""What a run would need, as a form's page shows it."""

from typing import Any

from django.utils.translation import gettext as _

from annotate.errors import Invalid
from training.pages.forms import TrainForm
from training.services.plans import Estimate, gib
from training.services.runs import look_ahead
from training.templatetags.run_numbers import duration


def estimate_content(form: TrainForm) -> dict[str, Any]:
    """What training/_estimate.html shows: for a form that is sent of what was sent, else of what it begins with."""
    asked = form if form.is_bound else form.as_sent()
    if not asked.is_valid():
        return {"cannot": _complaints(asked)}
    try:
        _plan, estimate = look_ahead(project=form.project, **asked.chosen())
    except Invalid as refused:
        asked.add_refusal(refused.message, refused.fields)
        return {"cannot": _complaints(asked)}
    return {"estimate": _told(estimate)}


def _complaints(form: TrainForm) -> list[str]:
    """What is wrong with the form, in words."""
    return [
        f"{form[name].label}: {error}" if name in form.fields else str(error)
        for name, errors in form.errors.items()
        for error in errors
    ]


def _told(estimate: Estimate) -> dict[str, Any]:
    need, seconds, room = estimate.need, estimate.seconds, estimate.room
    told: dict[str, Any] = {
        "notices": estimate.notices,
        "refusals": list(estimate.refusals.values()),
        "unknown": estimate.why_unknown,
        "queue": room.queue,
        "exact": estimate.exact,
        "room": _room(estimate),
    }
    if need is not None:
        told |= {"memory": gib(estimate.process_bytes), "steps": need.steps, "tokens": round(need.tokens / 100) * 100}
    if seconds is not None:
        told |= {"low": duration(seconds.low), "high": duration(seconds.high), "runs": seconds.runs}
    return told


def _room(estimate: Estimate) -> str:
    """In a few words, whether the workers that live have the memory."""
    room = estimate.room
    if estimate.need is None or not room.workers:
        return ""
    told = {"fitting": room.fitting, "workers": room.workers, "queue": room.queue}
    if room.fitting:
        return _("fits on %(fitting)d of %(workers)d workers of %(queue)s that are alive") % told
    return _("fits on no worker of %(queue)s that is alive now") % told
