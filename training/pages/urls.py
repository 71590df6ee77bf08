"""Addresses of the pages of runs and models."""

from django.urls import path

from training.pages import models, pipelines, sampled, views, workers

urlpatterns = [
    path("runs/", views.runs, name="runs"),
    path("runs/<int:run_id>/", views.run, name="run"),
    path("runs/<int:run_id>/live/", views.run_live, name="run-live"),
    path("runs/<int:run_id>/curves/", views.run_curves, name="run-curves"),
    path("runs/<int:run_id>/cancel/", views.cancel, name="run-cancel"),
    path("runs/<int:run_id>/resume/", views.resume, name="run-resume"),
    path("runs/<int:run_id>/send/", sampled.send, name="run-send"),
    path("workers/", workers.workers, name="workers"),
    path("workers/live/", workers.workers_live, name="workers-live"),
    path("p/<slug:slug>/train/", views.train, name="train"),
    path("p/<slug:slug>/train/estimate/", views.estimate, name="train-estimate"),
    path("p/<slug:slug>/pipeline/", pipelines.pipeline, name="pipeline"),
    path("models/", models.models, name="models"),
    path("models/<int:model_id>/", models.model, name="model"),
    path("models/<int:model_id>/promote/", models.promote, name="model-promote"),
    path("models/<int:model_id>/delete/", models.delete, name="model-delete"),
]
