"""Addresses of the pages for people."""

from django.urls import path

from annotate.pages import new_project, preferences, projects, setup, versions, workbench

urlpatterns = [
    path("", projects.home, name="home"),
    path("preferences/", preferences.preferences, name="preferences"),
    path("preferences/shortcuts/", workbench.shortcuts, name="shortcuts"),
    path("projects/new/", new_project.new_project, name="new_project"),
    path("p/<slug:slug>/", projects.project, name="project"),
    path("p/<slug:slug>/setup/", setup.setup, name="setup"),
    path("p/<slug:slug>/setup/preview/", setup.setup_preview, name="setup_preview"),
    path("p/<slug:slug>/setup/archive/", setup.archive, name="archive"),
    path("p/<slug:slug>/setup/versions/", versions.versions, name="versions"),
    path("p/<slug:slug>/setup/versions/<int:number>/", versions.version, name="version"),
    path("p/<slug:slug>/guidelines/", projects.guidelines, name="guidelines"),
    path("p/<slug:slug>/snapshots/", projects.freeze, name="freeze"),
    path("p/<slug:slug>/rank/", workbench.rank, name="rank"),
    path("p/<slug:slug>/rank/next/", workbench.rank_next, name="rank_next"),
    path("p/<slug:slug>/rank/submit/", workbench.rank_submit, name="rank_submit"),
    path("p/<slug:slug>/rank/back/", workbench.rank_back, name="rank_back"),
    path("p/<slug:slug>/rank/read/", workbench.rank_read, name="rank_read"),
    path("p/<slug:slug>/rank/<uuid:lease>/flag/", workbench.rank_flag, name="rank_flag"),
]
