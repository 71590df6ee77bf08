"""The Celery application: workers start with `celery -A webapp worker -Q default` or `-Q gpu`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

app = Celery("plackett")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
