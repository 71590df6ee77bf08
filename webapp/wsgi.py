"""What gunicorn serves."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from webapp.metrics_folder import share_counts

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
os.environ.setdefault("PLACKETT_PROCESS", "web")
share_counts(settings.PLACKETT_HOME)

application = get_wsgi_application()
