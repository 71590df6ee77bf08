"""The workbench as annotators would get it under rules that are not saved: a real task of the project, or a sample."""

from typing import Any

from django.utils.translation import gettext as _

from annotate.models import Lease, Project, ProjectVersion, Prompt, Response
from annotate.pages.cards import tasks_data
from annotate.pages.rendering import render_text
from annotate.selectors.leases import shown_content
from annotate.selectors.setup import example_task


def preview_of(project: Project, *, rules: dict[str, Any], number: int) -> dict[str, Any]:
    """What the page's script needs to show the workbench under these rules, and the guidelines as HTML.

    Nothing is written and nothing is leased.
    """
    version = ProjectVersion(project=project, number=number, **rules)
    prompt, responses = example_task(project) or sample_task()
    order = [response.pk for response in responses]
    lease = Lease(version=version, presented_order=order)
    by_id = {response.pk: response for response in responses}
    (task,) = tasks_data([shown_content(lease, prompt=prompt, version=version, responses=by_id)])
    return {"task": task, "guidelines": render_text(version.guidelines)}


def sample_task() -> tuple[Prompt, list[Response]]:
    """A small task for projects that have none yet; its rows are in no database."""
    question = _("Why do leaves change colour in autumn? Two or three sentences, please.")
    texts = (
        _(
            "In autumn trees stop making chlorophyll, the green pigment that catches light. As it breaks down, yellow "
            "and orange pigments that were there all along become visible; some trees also make new red ones."
        ),
        _(
            "Leaves change colour because of the cold. The frost burns them, and that is why they turn red and brown "
            "and fall down. Also, the days get shorter, and it gets colder, and so the leaves change their colour."
        ),
        _(
            "Great question! Autumn is a wonderful season, and there is **so much** to say:\n\n"
            "- less light\n- less chlorophyll\n- yellow pigments show\n\nLet me know if you want to hear more!"
        ),
    )
    thinking = _("The person wants two or three sentences. Chlorophyll first, then the other pigments.")
    prompt = Prompt(messages=[{"role": "user", "content": question}])
    responses = [
        Response(pk=number, prompt=prompt, text=text, model=_("model %(letter)s") % {"letter": "XYZ"[number - 1]})
        for number, text in enumerate(texts, 1)
    ]
    responses[0].thinking = thinking
    return prompt, responses
