"""Two bare DRF views with the SQL of `next/` and `rankings/` and nothing else, for ``benchmarks.data_loop``.

Served by gunicorn as `benchmarks.bare_loop:application`, without middleware, log-in, roles, checks or words. The
annotator comes with the request, and what is to be written is taken as it is.
"""

# ruff: noqa: E402
import json
import uuid
from typing import Any

import django

django.setup(set_prefix=False)

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import transaction
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate.models import Change, Project, User
from annotate.prepared import prepared_cursor
from annotate.selectors import leases
from annotate.services import queue, rankings
from annotate.services.counters import record_changes

NOTHING = {
    "lease_id": None, "revision": 1, "supersedes_id": None, "counted": True, "source": "api", "strengths": [],
    "all_bad": False, "ratings": "{}", "flags": "{}", "rationale": None, "rewrite_of_id": None, "rewrite_text": None,
    "content_sha256": "0" * 64, "seconds": 1.0,
}  # fmt: skip


class Bare(APIView):
    authentication_classes = ()
    permission_classes = ()


class Next(Bare):
    """Claims a slot and reads what is shown of it."""

    @transaction.atomic
    def post(self, request: Request) -> Response:
        project = Project(pk=request.data["project"], lease_seconds=1800)
        held = queue._claim(project=project, annotator=User(pk=request.data["annotator"]), wanted=1)
        if not held:
            return Response({"leases": []})
        with prepared_cursor() as cursor:
            cursor.execute(leases._SHOWN, [held[0].lease])
            lease, task, order, expires, messages, language, _number, _draft, texts, *_rest = cursor.fetchone()
        responses = [{"id": pk, "text": text} for pk, text in zip(order, texts, strict=True)]
        shown = {"id": lease, "task": task, "expires_at": expires, "prompt": json.loads(messages), "language": language}
        return Response({"leases": [shown | {"slot": held[0].slot, "responses": responses}]})


class Submit(Bare):
    """Writes a ranking with its entries, closes the slot and records the change."""

    @transaction.atomic
    def post(self, request: Request) -> Response:
        sent: dict[str, Any] = request.data
        values = NOTHING | {
            "project_id": sent["project"], "annotator_id": sent["annotator"], "task_id": sent["task"],
            "slot_id": sent["slot"], "lease_id": uuid.UUID(sent["lease"]), "version_id": sent["version"],
            "presented_order": sent["order"], "tiers": sent["tiers"], "strengths": [None] * (len(sent["order"]) - 1),
        }  # fmt: skip
        with prepared_cursor() as cursor:
            cursor.execute(rankings._WRITE, values)
            ranking, submitted_at = cursor.fetchone()
        record_changes(
            project=Project(pk=sent["project"]), changes=[{"kind": Change.Kind.RANKING, "ranking_id": ranking}]
        )
        return Response({"id": ranking, "submitted_at": submitted_at}, status=201)


urlpatterns = [path("next/", Next.as_view()), path("rankings/", Submit.as_view())]
settings.ROOT_URLCONF = __name__
settings.MIDDLEWARE = []
application = WSGIHandler()
