"""The project's settings with what tests need otherwise: quick password hashes, unhashed static names, a token for
/metrics (whose requests come from this machine here)."""

import os

from webapp.settings import *  # noqa: F403
from webapp.settings import DATABASES, STORAGES

# The database that conftest migrated for all parallel workers; none where a single process runs the tests.
DATABASES["default"]["TEST"] = {"TEMPLATE": os.environ.get("PLACKETT_TEST_TEMPLATE")}

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
WHITENOISE_AUTOREFRESH = True
METRICS_TOKEN = "for-tests-alone"
