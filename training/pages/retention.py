"""Whether the checkpoints of a run are kept, said on its page."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from annotate.errors import Refused
from annotate.pages.access import page, visitor
from training.selectors import get_run_for
from training.services.retention import keep_checkpoints


@require_POST
@page
def keep(request: HttpRequest, run_id: int) -> HttpResponse:
    """Keeps the checkpoints of a run (``keep=1``), or leaves them to the rules again."""
    found = get_run_for(visitor(request), run_id)
    wanted = request.POST.get("keep") == "1"
    try:
        keep_checkpoints(found, keep=wanted)
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        kept, left = _("The run's checkpoints are kept."), _("The run's checkpoints go when the rules say so.")
        messages.success(request, kept if wanted else left)
    return redirect(found)
