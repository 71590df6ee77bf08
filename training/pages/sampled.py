"""The responses of a sampling run on its page, and the button that sends them to annotators."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from annotate.errors import Refused
from annotate.models import Snapshot
from annotate.pages.access import page, visitor
from training.models import Run
from training.selectors import get_run_for
from training.selectors_responses import models_sampled, responses_of
from training.services.sending import Taken, send_responses

PROMPTS_A_PAGE = 10


def sampled_part(run: Run, *, start: int = 0) -> dict[str, Any] | None:
    """Some prompts of a finished sampling run with the responses side by side; None where there is nothing to show."""
    is_open = run.snapshot is None or run.snapshot.state == Snapshot.State.FROZEN
    responses = responses_of(run) if run.is_finished and is_open else None
    if responses is None or not len(responses):
        return None
    models, stop = models_sampled(run), start + PROMPTS_A_PAGE
    return {
        "models": models,
        "prompts": [
            {"prompt": prompt, "columns": list(zip(models, prompt.by_model(len(models)), strict=True))}
            for prompt in responses.prompts(start=start, stop=stop)
        ],
        "of": len(responses),
        "first": start + 1,
        "last": min(stop, len(responses)),
        "before": max(0, start - PROMPTS_A_PAGE) if start else None,
        "after": stop if stop < len(responses) else None,
    }


def asked_start(request: HttpRequest) -> int:
    """The first prompt that the address asks for, from 0; nonsense is the beginning."""
    given = request.GET.get("prompts", "")[:6]
    return int(given) if given.isascii() and given.isdecimal() else 0


@require_POST
@page
def send(request: HttpRequest, run_id: int) -> HttpResponse:
    """Makes ranking tasks of the run's responses."""
    found = get_run_for(visitor(request), run_id)
    try:
        messages.success(request, told(send_responses(found, by=visitor(request))))
    except Refused as refused:
        messages.error(request, refused.message)
    return redirect(found)


def told(taken: Taken) -> str:
    """What became of the responses, in sentences."""
    made = ngettext("%(count)d ranking task was made.", "%(count)d ranking tasks were made.", taken.made)
    sentences = [made % {"count": taken.made}]
    if taken.known:
        known = ngettext(
            "%(count)d prompt had been sent before.", "%(count)d prompts had been sent before.", taken.known
        )
        sentences.append(known % {"count": taken.known})
    if taken.merged:
        merged = ngettext(
            "%(count)d response says the same as another and stands with it as one.",
            "%(count)d responses say the same as another and stand with it as one.",
            taken.merged,
        )
        sentences.append(merged % {"count": taken.merged})
    sentences += [
        _("Left out: %(count)d, %(reason)s.") % {"count": count, "reason": reason}
        for reason, count in taken.skipped.items()
    ]
    return " ".join(sentences)
