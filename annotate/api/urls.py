"""Addresses under /api/v1/."""

from django.urls import path

from annotate.api import exports, leases, machines, projects, prompts, rankings, snapshots, webhooks
from annotate.api import schema as schema  # registers how the OpenAPI document describes our authentication

urlpatterns = [
    path("me/", projects.Me.as_view(), name="api-me"),
    path("projects/", projects.Projects.as_view(), name="api-projects"),
    path("projects/<slug:slug>/", projects.OneProject.as_view(), name="api-project"),
    path("projects/<slug:slug>/prompts/", prompts.Prompts.as_view(), name="api-prompts"),
    path("projects/<slug:slug>/next/", leases.Next.as_view(), name="api-next"),
    path("projects/<slug:slug>/rankings/", rankings.Rankings.as_view(), name="api-rankings"),
    path("projects/<slug:slug>/export/", exports.Exports.as_view(), name="api-export"),
    path("projects/<slug:slug>/snapshots/", snapshots.Snapshots.as_view(), name="api-snapshots"),
    path("projects/<slug:slug>/machines/", machines.Machines.as_view(), name="api-machines"),
    path("projects/<slug:slug>/machines/<int:machine>/", machines.OneMachine.as_view(), name="api-machine"),
    path("projects/<slug:slug>/machines/<int:machine>/token/", machines.MachineToken.as_view()),
    path("projects/<slug:slug>/webhooks/", webhooks.Webhooks.as_view(), name="api-webhooks"),
    path("projects/<slug:slug>/webhooks/<int:webhook>/", webhooks.OneWebhook.as_view(), name="api-webhook"),
    path("projects/<slug:slug>/webhooks/<int:webhook>/secret/", webhooks.WebhookSecret.as_view()),
    path("projects/<slug:slug>/webhooks/<int:webhook>/ping/", webhooks.WebhookPing.as_view()),
    path("projects/<slug:slug>/webhooks/<int:webhook>/deliveries/", webhooks.Deliveries.as_view()),
    path(
        "projects/<slug:slug>/webhooks/<int:webhook>/deliveries/<int:delivery>/replay/",
        webhooks.Replay.as_view(),
        name="api-replay",
    ),
    path("snapshots/<int:snapshot>/download/", snapshots.SnapshotFile.as_view(), name="api-snapshot-download"),
    path("rankings/<int:ranking>/revise/", rankings.Revise.as_view(), name="api-revise"),
    path("leases/<uuid:lease>/extend/", leases.Extend.as_view(), name="api-lease-extend"),
    path("leases/<uuid:lease>/release/", leases.Release.as_view(), name="api-lease-release"),
    path("leases/<uuid:lease>/skip/", leases.SkipTask.as_view(), name="api-lease-skip"),
    path("leases/<uuid:lease>/flag/", leases.FlagTask.as_view(), name="api-lease-flag"),
    path("leases/<uuid:lease>/draft/", leases.DraftOfLease.as_view(), name="api-lease-draft"),
]
