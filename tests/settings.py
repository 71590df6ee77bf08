"""The project's settings with what tests need otherwise: quick password hashes, unhashed static names, a token for
/metrics (whose requests come from this machine here)."""

from webapp.settings import *  # noqa: F403
from webapp.settings import STORAGES

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
WHITENOISE_AUTOREFRESH = True
METRICS_TOKEN = "for-tests-alone"
