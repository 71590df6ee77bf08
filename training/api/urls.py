"""Addresses under /api/v1/."""

from django.urls import path

from training.api import (
    comparison,
    estimates,
    models,
    pipelines,
    retention,
    sending,
    tensorboard,
    tries,
    views,
    watching,
    workers,
)

urlpatterns = [
    path("runs/", views.Runs.as_view(), name="api-runs"),
    path("runs/estimate/", estimates.EstimateRun.as_view(), name="api-run-estimate"),
    path("runs/presets/", estimates.Presets.as_view(), name="api-run-presets"),
    path("runs/compare/", comparison.Comparison.as_view(), name="api-runs-compare"),
    path("runs/<int:run>/", views.OneRun.as_view(), name="api-run"),
    path("runs/<int:run>/cancel/", views.Cancel.as_view(), name="api-run-cancel"),
    path("runs/<int:run>/resume/", views.Resume.as_view(), name="api-run-resume"),
    path("runs/<int:run>/metrics/", views.Metrics.as_view(), name="api-run-metrics"),
    path("runs/<int:run>/samples/", watching.Samples.as_view(), name="api-run-samples"),
    path("runs/<int:run>/use/", watching.Use.as_view(), name="api-run-use"),
    path("runs/<int:run>/checkpoints/", retention.Checkpoints.as_view(), name="api-run-checkpoints"),
    path("runs/<int:run>/tensorboard/", tensorboard.EventFile.as_view(), name="api-run-tensorboard"),
    path("runs/<int:run>/send/", sending.Sending.as_view(), name="api-run-send"),
    path("projects/<slug:slug>/tries/", tries.Tries.as_view(), name="api-tries"),
    path("projects/<slug:slug>/tries/<int:run>/", tries.OneTry.as_view(), name="api-try"),
    path("projects/<slug:slug>/tries/<int:run>/cpu/", tries.ToCpu.as_view(), name="api-try-cpu"),
    path("pipelines/", pipelines.Pipelines.as_view(), name="api-pipelines"),
    path("workers/", workers.Workers.as_view(), name="api-workers"),
    path("models/", models.Models.as_view(), name="api-models"),
    path("models/<int:model>/", models.OneModel.as_view(), name="api-model"),
    path("models/<int:model>/promote/", models.Promotion.as_view(), name="api-model-promote"),
    path("models/<int:model>/download/", models.Download.as_view(), name="api-model-download"),
]
