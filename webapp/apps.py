"""Loads the Celery application with Django, so that tasks sent from the web know their broker."""

from django.apps import AppConfig

from webapp.celery import app as celery_app


class WebappConfig(AppConfig):
    """The composition root as a Django app: its templates and static files."""

    name = "webapp"
    celery = celery_app
