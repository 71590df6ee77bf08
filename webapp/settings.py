"""Process settings: everything comes from the environment, is read once here and checked at the start.

docs/settings.md lists every variable. Run hyperparameters are not here: see training/recipes/configs.py.
"""

import json
from pathlib import Path
from typing import Any

from celery.schedules import crontab
from csp.constants import NONE, SELF

from webapp import env

BASE_DIR = Path(__file__).resolve().parent.parent
PLACKETT_HOME = Path(env.text("PLACKETT_HOME", str(BASE_DIR / "var"))).expanduser().resolve()
PLACKETT_HOST = env.text("PLACKETT_HOST", "127.0.0.1")
PLACKETT_PORT = env.integer("PLACKETT_PORT", 8000, 1, 65535)
PLACKETT_DEMO = env.flag("PLACKETT_DEMO", True)
PLACKETT_WEB_THREADS = env.integer("PLACKETT_WEB_THREADS", 8, 1, 256)

DEBUG = env.flag("PLACKETT_DEBUG", False)
SECRET_KEY = env.secret("PLACKETT_SECRET_KEY", PLACKETT_HOME, "secret-key")


def _embedded_services() -> dict[str, str]:
    """Addresses of the servers that `make run` started, when the environment names none."""
    try:
        found: dict[str, str] = json.loads((PLACKETT_HOME / "services.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


_services = _embedded_services()
DATABASE_URL = env.private("DATABASE_URL") or _services.get("database_url", "postgresql://plackett@/plackett")
REDIS_URL = env.with_password(
    env.private("REDIS_URL") or _services.get("redis_url", "redis://127.0.0.1:6379/0"), env.private("REDIS_PASSWORD")
)

# --- who may reach us ------------------------------------------------------------------------------------------------
_scheme = "https" if env.flag("PLACKETT_TLS", False) else "http"
_names = {"127.0.0.1", "localhost", "[::1]", *env.listing("PLACKETT_HOSTS")}
if PLACKETT_HOST not in {"0.0.0.0", "::"}:
    _names.add(PLACKETT_HOST)
ALLOWED_HOSTS = sorted(_names)
CSRF_TRUSTED_ORIGINS = sorted(
    {f"{_scheme}://{name}" for name in _names} | {f"{_scheme}://{name}:{PLACKETT_PORT}" for name in _names}
)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _scheme == "https"
SECURE_SSL_REDIRECT = False  # the proxy that ends TLS redirects
SECURE_HSTS_SECONDS = 31_536_000 if _scheme == "https" else 0
if _scheme == "https":
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_HTTPONLY = True
CSRF_COOKIE_HTTPONLY = False  # our own scripts read it to send the header
CSRF_FAILURE_VIEW = "webapp.csrf.refused"
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
METRICS_TOKEN = env.private("PLACKETT_METRICS_TOKEN")  # without one, /metrics answers this machine alone

# htmx never evaluates and adds no style of its own (see base.html), so nothing inline is needed anywhere.
CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

# --- the parts -------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "csp",
    "django_htmx",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
    "annotate",
    "training",
    "webapp",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "webapp.middleware.CountRequests",  # whatever comes after it is in the time; files of the pages are not counted
    "csp.middleware.CSPMiddleware",
    "webapp.middleware.LooserPolicyForTools",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "webapp.middleware.LanguageOfVisitor",  # after the user is known, before anything that speaks
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
ROOT_URLCONF = "webapp.urls"
WSGI_APPLICATION = "webapp.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "webapp" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "webapp.context.appearance",
                "webapp.context.rights",
            ]
        },
    }
]

# --- data ------------------------------------------------------------------------------------------------------------
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "ATOMIC_REQUESTS": False,
        **env.database(DATABASE_URL, password=env.private("DATABASE_PASSWORD")),
    }
}
if env.text("PLACKETT_PROCESS") == "web":
    # Only the web keeps a pool: a forked worker that inherits one would share its sockets.
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 2, "max_size": PLACKETT_WEB_THREADS + 2, "timeout": 20}
    # Without it, every pooled connection would fail one request after the database was restarted.
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _celery_url(url: str) -> str:
    """Celery spells a socket address redis+socket:///path?virtual_host=N; redis-py spells it unix:///path?db=N."""
    return (
        url.replace("unix://", "redis+socket://", 1).replace("db=", "virtual_host=")
        if url.startswith("unix://")
        else url
    )


CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "plackett",
    }
}
CELERY_BROKER_URL = _celery_url(REDIS_URL)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# What `beat` sends; a message that no worker took within its hour is dropped, the next day brings another.
CELERY_BEAT_SCHEDULE = {
    name: {"task": f"webapp.{name}", "schedule": crontab(hour="3", minute=minute), "options": {"expires": 3600}}
    for name, minute in (
        ("forget_sessions", "10"),
        ("forget_keys", "20"),
        ("forget_tries", "30"),
        ("prune_checkpoints", "40"),
        ("remove_left_files", "50"),
        ("forget_deliveries", "55"),
        ("forget_uploads", "58"),
    )
}
# What a webhook did not take is tried again by this; what just happened is sent at once, see services.outbox.
CELERY_BEAT_SCHEDULE["deliver_webhooks"] = {
    "task": "annotate.deliver_webhooks", "schedule": 15.0, "options": {"expires": 15},
}  # fmt: skip
CELERY_BEAT_SCHEDULE["count_feeds_ahead"] = {
    "task": "annotate.count_feeds_ahead", "schedule": 60.0, "options": {"expires": 60},
}  # fmt: skip

STATIC_URL = "static/"
STATIC_ROOT = PLACKETT_HOME / "static"
MEDIA_ROOT = PLACKETT_HOME / "artifacts"
# Where snapshots are: a folder, or a bucket. With a bucket, runs and models are there, too, and what stands in
# RUNS_ROOT is of this machine alone; see training.store.
_bucket = env.bucket("PLACKETT_ARTIFACTS")
STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(MEDIA_ROOT)}}
    if _bucket is None
    else {"BACKEND": "webapp.bucket.BucketStorage", "OPTIONS": env.bucket_storage(*_bucket)},
    "staticfiles": {"BACKEND": "webapp.storage.StaticStorage"},
}
RUNS_ROOT = PLACKETT_HOME / "runs"
MODELS_ROOT = PLACKETT_HOME / "models"
FETCHED_ROOT = PLACKETT_HOME / "fetched"
# With a bucket: whether RUNS_ROOT is one folder for all machines nevertheless, as runs of several machines need it.
RUNS_SHARED = env.flag("PLACKETT_RUNS_SHARED", False)
# How long a worker goes on trying to reach a bucket that is away, for what it cannot do without.
STORE_PATIENCE_SECONDS = env.integer("PLACKETT_STORE_PATIENCE", 3600, 1, 7 * 86400)
# What stays of the checkpoints of a run that is over; a project may say otherwise, see training.services.retention.
CHECKPOINTS_KEPT = env.integer("PLACKETT_CHECKPOINTS_KEPT", 1, 0, 100)
CHECKPOINT_DAYS = env.integer("PLACKETT_CHECKPOINT_DAYS", 7, 0, 3650)
RESUME_DAYS = env.integer("PLACKETT_RESUME_DAYS", 30, 0, 3650)
# Kinds of workers that runs may be given to; the first takes what names none and fits there.
RUN_QUEUES = env.run_queues()
# Of a worker: how many processes of one run it starts (0: one for each GPU or processor), and where others reach it.
WORKER_PROCESSES = env.integer("PLACKETT_PROCESSES", 0, low=0, high=64)
WORKER_ADDRESS = env.text("PLACKETT_ADDRESS")
DEVICE_HOUR_PRICE = env.price("PLACKETT_DEVICE_HOUR_PRICE")
# Rewards of PPO that run code on the workers and may be named by whoever may start a run: "python:module.function" for
# functions of the operator's own, "tests" for the policy's answers run against unit tests.
REWARD_FUNCTIONS = tuple(env.listing("PLACKETT_REWARD_FUNCTIONS"))
# Who else is told of runs; TensorBoard's files are always written.
MLFLOW_URI = env.mlflow_uri()
MLFLOW_EXPERIMENT = env.text("PLACKETT_MLFLOW_EXPERIMENT", "plackett-{project}")
MLFLOW_TOKEN, MLFLOW_USERNAME, MLFLOW_PASSWORD = env.mlflow_login()

# Webhooks may name addresses that only this server reaches, and plain http.
WEBHOOK_PRIVATE = env.flag("PLACKETT_WEBHOOK_PRIVATE", False)

# --- people ----------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "annotate.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_ADAPTER = "webapp.accounts.ClosedAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
ALLAUTH_TRUSTED_PROXY_COUNT = env.integer("PLACKETT_PROXIES", 0, 0, 9)
ACCOUNT_RATE_LIMITS = {"login": "60/m/ip", "login_failed": "10/5m/ip,5/5m/key"}
EMAIL_BACKEND = env.text("PLACKETT_EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")

# --- the API ---------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "annotate.api.authentication.TokenAuthentication",
        "annotate.api.authentication.PageSession",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["annotate.api.authentication.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["annotate.api.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "annotate.api.schema.Operations",
    "DEFAULT_PAGINATION_CLASS": None,
    "EXCEPTION_HANDLER": "annotate.api.errors.handle",
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Plackett",
    "DESCRIPTION": "Rankings in, preference data and reward models out.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "annotate.api.schema.name_headers",
    ],
    "ENUM_NAME_OVERRIDES": {
        "ProjectRole": "annotate.models.Role",
        "Need": "annotate.models.ProjectVersion.Strength",
        "RunKind": "training.models.Run.Kind",
        "RunState": "training.models.Run.State",
        "ModelKind": "training.models.ModelVersion.Kind",
        "ModelStage": "training.models.ModelVersion.Stage",
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}
# What one token may ask: requests a minute, evenly (0: no limit), and how many may come at once.
API_RATE = env.integer("PLACKETT_API_RATE", 60_000, 0, 10_000_000)
API_BURST = env.integer("PLACKETT_API_BURST", 6_000, 1, 10_000_000)
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024 * 1024  # one bulk request of prompts; larger files go through import_data

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]  # each in its own words: docs/translating.md
LOCALE_PATHS = [BASE_DIR / "webapp" / "locale"]
FORMAT_MODULE_PATH = ["webapp.formats"]
LANGUAGE_COOKIE_NAME = "plackett_language"
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SECURE = SESSION_COOKIE_SECURE
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO" if not DEBUG else "DEBUG"},
    "loggers": {"django.request": {"level": "ERROR"}, "httpx": {"level": "WARNING"}},
}
UNFOLD = {"SITE_TITLE": "Plackett", "SITE_HEADER": "Plackett", "SITE_URL": "/"}
