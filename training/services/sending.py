"""A sampling run's responses, sent to annotators: each prompt becomes a ranking task, blind."""

import hashlib
import json
from collections.abc import Iterator

from django.utils.translation import gettext as _

from annotate.errors import Conflict
from annotate.models import Snapshot, User
from annotate.services.intake import SampledPrompt, SampledResponse, Taken, take_sampled
from training.models import Run
from training.selectors_responses import AnsweredPrompt, SampledResponses, TriedResponses, models_sampled, responses_of

__all__ = ["Taken", "external_id_of", "send_responses"]


def send_responses(run: Run, *, by: User | None) -> Taken:
    """Makes ranking tasks of the responses of a sampling run, in its own project; pressing twice makes none twice.

    The models stand with the responses, where annotators do not see them. Call it outside a transaction.

    Raises:
        Conflict: it is no sampling run, has not succeeded, its snapshot was withdrawn, or its files are gone.
    """
    if run.kind != Run.Kind.SAMPLE:
        raise Conflict(_("Only the responses of a sampling run can be sent to annotators."))
    if run.state != Run.State.SUCCEEDED:
        raise Conflict(_("The run has not succeeded: there are no responses to send yet."))
    if run.snapshot is not None and run.snapshot.state != Snapshot.State.FROZEN:
        raise Conflict(_("The run's snapshot was withdrawn: nothing of it may be used."))
    responses = responses_of(run)
    if responses is None:
        raise Conflict(_("The run's files are gone."))
    return take_sampled(project=run.project, prompts=_prompts(run, responses), source=f"run {run.pk}", created_by=by)


def _prompts(run: Run, responses: SampledResponses | TriedResponses) -> Iterator[SampledPrompt]:
    models = models_sampled(run)
    settings = {name: run.config[name] for name in ("temperature", "max_response_length", "seed")} | {"run": run.pk}
    for prompt in responses.prompts():
        yield SampledPrompt(
            external_id=external_id_of(run, prompt),
            messages=prompt.messages,
            split_group=prompt.split_group,
            split=prompt.split,
            responses=[
                SampledResponse(one.text, one.thinking, models[one.model], settings) for one in prompt.responses
            ],
        )


def external_id_of(run: Run, prompt: AnsweredPrompt) -> str:
    """A name for a prompt of a run that stays the same however often it is sent."""
    content = json.dumps(prompt.messages, sort_keys=True)
    return f"run-{run.pk}-{hashlib.sha256(content.encode()).hexdigest()[:32]}"
