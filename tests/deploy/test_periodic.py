"""What `beat` sends: each message is a task that exists, and each does what it says."""

from datetime import timedelta

import pytest
from celery import current_app
from django.conf import settings
from django.contrib.sessions.models import Session
from django.utils import timezone

from annotate.models import IdempotencyKey
from annotate.services.idempotency import KEPT_DAYS
from tests.annotate.factories import make_user
from webapp.tasks import forget_keys, forget_sessions


def test_the_schedule_names_tasks_that_workers_know_and_lets_messages_expire() -> None:
    current_app.loader.import_default_modules()
    entries = settings.CELERY_BEAT_SCHEDULE.values()
    assert {entry["task"] for entry in entries} == {
        "webapp.forget_sessions",
        "webapp.forget_keys",
        "webapp.forget_tries",
        "webapp.forget_uploads",
        "webapp.prune_checkpoints",
        "webapp.remove_left_files",
        "webapp.forget_deliveries",
        "annotate.count_feeds_ahead",
        "annotate.deliver_webhooks",
        "annotate.go_on_withdrawing",
    }
    for entry in entries:
        assert entry["task"] in current_app.tasks
        assert entry["options"]["expires"] <= 24 * 3600, "messages must not pile up while no worker is there"


@pytest.mark.django_db
def test_expired_sessions_go_and_others_stay() -> None:
    now = timezone.now()
    for key, ends in (("old", now - timedelta(seconds=1)), ("new", now + timedelta(days=1))):
        Session.objects.create(session_key=key, session_data="", expire_date=ends)
    forget_sessions()
    assert list(Session.objects.values_list("pk", flat=True)) == ["new"]
    forget_sessions()
    assert Session.objects.count() == 1


@pytest.mark.django_db
def test_old_keys_go_and_younger_ones_stay() -> None:
    user, now = make_user("alice"), timezone.now()
    for key, days in (("old", KEPT_DAYS + 1), ("young", KEPT_DAYS - 1)):
        made = IdempotencyKey.objects.create(
            user=user, endpoint="x", key=key, body_sha256="0" * 64, status=200, answer={}
        )
        IdempotencyKey.objects.filter(pk=made.pk).update(created_at=now - timedelta(days=days))
    assert forget_keys() == 1
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["young"]
    assert forget_keys() == 0
