"""Addresses of the pages of runs and models."""

from django.urls import path

from training.pages import comparison, models, pipelines, retention, sampled, tries, views, watching, workers

urlpatterns = [
    path("runs/", views.runs, name="runs"),
    path("runs/compare/", comparison.compare, name="runs-compare"),
    path("runs/<int:run_id>/", views.run, name="run"),
    path("runs/<int:run_id>/live/", views.run_live, name="run-live"),
    path("runs/<int:run_id>/curves/", views.run_curves, name="run-curves"),
    path("runs/<int:run_id>/samples/", watching.run_samples, name="run-samples"),
    path("runs/<int:run_id>/use/", watching.run_use, name="run-use"),
    path("runs/<int:run_id>/cancel/", views.cancel, name="run-cancel"),
    path("runs/<int:run_id>/resume/", views.resume, name="run-resume"),
    path("runs/<int:run_id>/keep/", retention.keep, name="run-keep"),
    path("runs/<int:run_id>/send/", sampled.send, name="run-send"),
    path("workers/", workers.workers, name="workers"),
    path("workers/live/", workers.workers_live, name="workers-live"),
    path("p/<slug:slug>/train/", views.train, name="train"),
    path("p/<slug:slug>/train/estimate/", views.estimate, name="train-estimate"),
    path("p/<slug:slug>/pipeline/", pipelines.pipeline, name="pipeline"),
    path("p/<slug:slug>/try/", tries.tries, name="tries"),
    path("p/<slug:slug>/try/<int:run_id>/", tries.one_try, name="try"),
    path("p/<slug:slug>/try/<int:run_id>/live/", tries.try_live, name="try-live"),
    path("p/<slug:slug>/try/<int:run_id>/pieces/", tries.try_pieces, name="try-pieces"),
    path("p/<slug:slug>/try/<int:run_id>/cpu/", tries.to_cpu, name="try-cpu"),
    path("p/<slug:slug>/try/<int:run_id>/cancel/", tries.cancel, name="try-cancel"),
    path("p/<slug:slug>/try/<int:run_id>/send/", tries.send, name="try-send"),
    path("models/", models.models, name="models"),
    path("models/<int:model_id>/", models.model, name="model"),
    path("models/<int:model_id>/promote/", models.promote, name="model-promote"),
    path("models/<int:model_id>/delete/", models.delete, name="model-delete"),
]
