"""Addresses of the pages for people."""

from django.urls import path

from annotate.pages import imports, new_project, people, preferences, projects, setup, tasks, versions, workbench

urlpatterns = [
    path("", projects.home, name="home"),
    path("preferences/", preferences.preferences, name="preferences"),
    path("projects/new/", new_project.new_project, name="new_project"),
    path("p/<slug:slug>/", projects.project, name="project"),
    path("p/<slug:slug>/setup/", setup.setup, name="setup"),
    path("p/<slug:slug>/setup/preview/", setup.setup_preview, name="setup_preview"),
    path("p/<slug:slug>/setup/archive/", setup.archive, name="archive"),
    path("p/<slug:slug>/setup/versions/", versions.versions, name="versions"),
    path("p/<slug:slug>/setup/versions/<int:number>/", versions.version, name="version"),
    path("p/<slug:slug>/guidelines/", projects.guidelines, name="guidelines"),
    path("p/<slug:slug>/snapshots/", projects.freeze, name="freeze"),
    path("p/<slug:slug>/people/", people.people, name="people"),
    path("p/<slug:slug>/people/invitations/<int:invitation>/revoke/", people.revoke, name="invitation_revoke"),
    path("p/<slug:slug>/people/<int:member>/", people.member, name="member"),
    path("p/<slug:slug>/people/<int:member>/deactivate/", people.deactivate, name="member_deactivate"),
    path("p/<slug:slug>/people/<int:member>/reactivate/", people.reactivate, name="member_reactivate"),
    path("p/<slug:slug>/people/<int:member>/password-link/", people.password_link, name="member_password_link"),
    path("p/<slug:slug>/tasks/", tasks.tasks, name="tasks"),
    path("p/<slug:slug>/tasks/<int:task>/", tasks.task, name="task"),
    path("p/<slug:slug>/tasks/<int:task>/release/", tasks.release, name="task_release"),
    path("p/<slug:slug>/tasks/<int:task>/close/", tasks.close, name="task_close"),
    path("p/<slug:slug>/tasks/<int:task>/reopen/", tasks.reopen, name="task_reopen"),
    path("p/<slug:slug>/tasks/<int:task>/settle/", tasks.settle, name="task_settle"),
    path("p/<slug:slug>/tasks/<int:task>/withdraw/", tasks.withdraw_task, name="task_withdraw"),
    path("p/<slug:slug>/answers/<int:ranking>/withdraw/", tasks.withdraw_answer, name="ranking_withdraw"),
    path("p/<slug:slug>/import/", imports.import_page, name="import_data"),
    path("p/<slug:slug>/import/<int:batch>/undo/", imports.undo, name="import_undo"),
    path("p/<slug:slug>/rank/", workbench.rank, name="rank"),
    path("p/<slug:slug>/rank/next/", workbench.rank_next, name="rank_next"),
    path("p/<slug:slug>/rank/submit/", workbench.rank_submit, name="rank_submit"),
    path("p/<slug:slug>/rank/back/", workbench.rank_back, name="rank_back"),
    path("p/<slug:slug>/rank/difference/", workbench.rank_difference, name="rank_difference"),
    path("p/<slug:slug>/rank/read/", workbench.rank_read, name="rank_read"),
]
