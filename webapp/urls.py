"""The map of addresses."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views import defaults

from annotate.api import errors
from annotate.api.docs import ApiDocs, Document
from annotate.pages.first_admin import first_admin
from annotate.pages.invitations import invitation, password_link
from webapp import health, metrics

Routes = list[URLPattern | URLResolver]

# The admin's own log-in form counts no wrong passwords; this sends people to ours, which does.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]


api: Routes = [
    path("", include("annotate.api.urls")),
    path("", include("training.api.urls")),
]
urlpatterns: Routes = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
    path("api/v1/", include(api)),
    path("api/schema/", Document.as_view(), name="schema"),
    path("api/docs/", login_required(ApiDocs.as_view()), name="api-docs"),
    re_path(r"^api/", errors.no_such_address),
    path("accounts/first-admin/<str:secret>/", first_admin, name="first-admin"),
    path("accounts/invitation/<str:secret>/", invitation, name="invitation"),
    path("accounts/password-link/<str:secret>/", password_link, name="password_link"),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("", include("annotate.pages.urls")),
    path("", include("training.pages.urls")),
]


def _for_programs(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    return errors.bad_request(request) if _for_programs(request) else defaults.bad_request(request, exception)


def handler500(request: HttpRequest) -> HttpResponse:
    return errors.fault_of_ours(request) if _for_programs(request) else defaults.server_error(request)
