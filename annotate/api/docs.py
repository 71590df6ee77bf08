"""The API in the browser, from files on this server."""

from drf_spectacular.views import SpectacularSwaggerSplitView


class ApiDocs(SpectacularSwaggerSplitView):
    """Swagger UI with page and script apart, so that the content security policy needs nothing inline."""

    template_name = "annotate/api_docs.html"
