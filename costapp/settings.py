"""Every setting of the Django processes. docs/settings.md lists the environment variables; a test checks."""

from pathlib import Path

import dj_database_url

from costapp import env
from costapp.core.targets import read_allowed

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = env.default_home()

# --- identity and secrets

DEBUG = env.flag("COSTAPP_DEBUG")
# Empty means: commands that need no secret work, the web process refuses to start (costapp.wsgi).
SECRET_KEY = env.text("COSTAPP_SECRET_KEY")
SECRET_KEY_FALLBACKS = env.names("COSTAPP_SECRET_KEY_FALLBACKS")
# Encrypts stored secrets that must be replayed, such as webhook addresses; the first encrypts, all decrypt.
FIELD_KEYS = env.names("COSTAPP_FIELD_KEYS")

# --- who may talk to us, and how

ALLOWED_HOSTS = env.names("COSTAPP_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.names("COSTAPP_CSRF_TRUSTED_ORIGINS")
# Off by default because http://localhost must be able to sign in.
HTTPS = env.flag("COSTAPP_HTTPS")
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = env.number("COSTAPP_HSTS_SECONDS", 365 * 24 * 3600)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
# Names of our own: cookies of localhost are shared by all its ports. "__Host-" binds them to this host.
SESSION_COOKIE_NAME = "__Host-costapp-session" if HTTPS else "costapp-session"
CSRF_COOKIE_NAME = "__Host-costapp-csrf" if HTTPS else "costapp-csrf"
X_FRAME_OPTIONS = "DENY"

# --- application

INSTALLED_APPS = [
    "costapp.apps.CostappConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_htmx",
]
MIDDLEWARE = [
    "costapp.web.health.HealthMiddleware",
    "costapp.web.middleware.WebSafetyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "costapp.web.outage.DatabaseOutageMiddleware",
]
ROOT_URLCONF = "costapp.urls"
WSGI_APPLICATION = "costapp.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "costapp.web.context.site",
            ],
            "libraries": {"costapp": "costapp.web.templatetags.costapp"},
        },
    },
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
# What "Connect an app" shows: where apps send their telemetry, as they see it.
OTLP_PUBLIC_URL = env.text("COSTAPP_OTLP_PUBLIC_URL")
OTLP_HTTP_PORT = env.number("COSTAPP_OTLP_HTTP_PORT", 4318)
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"

# --- database

DATABASE_URL = env.text("DATABASE_URL", "postgresql:///costapp")
DATABASES = {"default": dj_database_url.parse(DATABASE_URL, conn_health_checks=True)}
_options = DATABASES["default"].setdefault("OPTIONS", {})
_options.setdefault("connect_timeout", 5)
_options["options"] = " ".join(
    [
        _options.get("options", ""),
        f"-c statement_timeout={env.number('COSTAPP_STATEMENT_TIMEOUT_S', 600)}s",
        "-c idle_in_transaction_session_timeout=60s",
    ]
).strip()
# Pages are many short statements: compiling them, or sharing one between processes, costs more than it saves.
WEB_CONNECTION_OPTIONS = "-c jit=off -c max_parallel_workers_per_gather=0 -c work_mem=16MB"
# The web process shares a few connections between its threads; everything else keeps one.
if _pool_size := env.number("COSTAPP_DB_POOL_SIZE", 0):
    # A pool that gives up soon asks the database anew at the next page, so pages are back as soon as it is.
    _options["pool"] = {"min_size": 1, "max_size": _pool_size, "timeout": 5, "reconnect_timeout": 3, "max_idle": 60}
    _options["options"] += f" {WEB_CONNECTION_OPTIONS}"
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 60
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- static files

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "costapp" / "web" / "static"]
# Collected files have their hash in the name and are cached for ever. Without a folder for them the sources are served.
_collected = env.text("COSTAPP_STATIC_ROOT")
STATIC_ROOT = Path(_collected) if _collected else None
WHITENOISE_USE_FINDERS = not _collected
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if _collected
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

# --- background jobs (the schedule is in costapp.celery)

CELERY_BROKER_URL = env.text("CELERY_BROKER_URL", "redis://localhost:6379/0")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_IGNORE_RESULT = True  # the result of a task is in the database
CELERY_TASK_TIME_LIMIT = 840
# A process that a large piece of work has made big is replaced after it, so that idle stays small.
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 1024 * env.number("COSTAPP_WORKER_MEMORY_MIB", 256, least=200)
if CELERY_BROKER_URL.startswith("amqp"):
    CELERY_TASK_DEFAULT_QUEUE_TYPE = "quorum"
else:
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": 900,  # above the time limit, else a long task runs twice
        # Without these two a killed worker's task comes back only every 100 s (kombu 5.7).
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
    }

# --- alerts (costapp.services.alerts)

# A message waits this long for others of its group, and this long after the group's last message.
ALERT_GROUP_WAIT_S = env.number("COSTAPP_ALERT_GROUP_WAIT_S", 30)
ALERT_GROUP_INTERVAL_S = env.number("COSTAPP_ALERT_GROUP_INTERVAL_S", 300)
RULE_SUBJECTS = env.number("COSTAPP_RULE_SUBJECTS", 1000, least=1)
# Beyond this many messages an hour, a channel gets one for everything, at the distance above.
ALERT_MESSAGES_PER_HOUR = env.number("COSTAPP_ALERT_MESSAGES_PER_HOUR", 30, least=1)
ALERT_RETRY_HOURS = env.number("COSTAPP_ALERT_RETRY_HOURS", 24, least=1)
# How links in messages begin.
PUBLIC_URL = env.text("COSTAPP_PUBLIC_URL", f"http://localhost:{env.number('COSTAPP_PORT', 8000)}")
SLACK_API_URL = env.text("COSTAPP_SLACK_API_URL", "https://slack.com/api")
# Networks and ports that messages may go to although they are not public: 10.20.0.0/16:8443
ALLOW_PRIVATE_TARGETS = env.names("COSTAPP_ALLOW_PRIVATE_TARGETS")
try:
    read_allowed(ALLOW_PRIVATE_TARGETS)
except ValueError as problem:
    raise env.SettingError(f"COSTAPP_ALLOW_PRIVATE_TARGETS: {problem}") from None

# --- mail

EMAIL_HOST = env.text("COSTAPP_EMAIL_HOST")
EMAIL_PORT = env.number("COSTAPP_EMAIL_PORT", 587)
EMAIL_HOST_USER = env.text("COSTAPP_EMAIL_USER")
EMAIL_HOST_PASSWORD = env.text("COSTAPP_EMAIL_PASSWORD")
EMAIL_SECURITY = env.text("COSTAPP_EMAIL_SECURITY", "starttls")
if EMAIL_SECURITY not in {"starttls", "tls", "none"}:
    raise env.SettingError(f"COSTAPP_EMAIL_SECURITY must be starttls, tls or none, not {EMAIL_SECURITY!r}.")
EMAIL_USE_TLS, EMAIL_USE_SSL = EMAIL_SECURITY == "starttls", EMAIL_SECURITY == "tls"
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("COSTAPP_EMAIL_FROM", "Costapp <costapp@localhost>")

# --- budgets (services.evaluate_budgets)

BUDGET_EVERY_S = env.number("COSTAPP_BUDGET_EVERY_S", 60, least=5)
BUDGET_SUBJECTS = env.number("COSTAPP_BUDGET_SUBJECTS", 10_000, least=1)
BUDGET_FORECASTS = env.number("COSTAPP_BUDGET_FORECASTS", 500, least=1)

# --- re-pricing in the admin (admin_reprice)

REPRICE_PREVIEW_S = env.number("COSTAPP_REPRICE_PREVIEW_S", 10, least=1)

# --- anomalies (services.detect_anomalies)

ANOMALY_SERIES = env.number("COSTAPP_ANOMALY_SERIES", 500, least=1)
ANOMALY_HISTORY_DAYS = env.number("COSTAPP_ANOMALY_HISTORY_DAYS", 60, least=7)
ANOMALY_LOOK_BACK_DAYS = env.number("COSTAPP_ANOMALY_LOOK_BACK_DAYS", 45, least=1)
ANOMALY_ALERTS_PER_WEEK = env.number("COSTAPP_ANOMALY_ALERTS_PER_WEEK", 3)
ANOMALY_LEAST_NANO = env.number("COSTAPP_ANOMALY_LEAST_CENTS", 100) * 10_000_000
# --- what may be scraped (the collectors read the same setting)

SCRAPE_ALLOW = env.names("COSTAPP_SCRAPE_ALLOW")
try:
    read_allowed(SCRAPE_ALLOW)
except ValueError as problem:
    raise env.SettingError(f"COSTAPP_SCRAPE_ALLOW: {problem}") from None

# --- GPU hours (the job is costapp.services.allocate_gpu_hours)

GPU_HOUR_SETTLE_S = env.number("COSTAPP_GPU_HOUR_SETTLE_S", 600)

# --- how long data is kept (the job is costapp.services.retention)

KEEP_SPANS_DAYS = env.number("COSTAPP_KEEP_SPANS_DAYS", 30, least=2)
KEEP_CONTENT_DAYS = env.number("COSTAPP_KEEP_CONTENT_DAYS", 7, least=1)
KEEP_ALERTS_DAYS = env.number("COSTAPP_KEEP_ALERTS_DAYS", 400, least=31)
KEEP_CHARGES_DAYS = env.number("COSTAPP_KEEP_CHARGES_DAYS", 400, least=31)
KEEP_GPU_SAMPLES_DAYS = env.number("COSTAPP_KEEP_GPU_SAMPLES_DAYS", 30, least=2)
KEEP_AUDIT_DAYS = env.number("COSTAPP_KEEP_AUDIT_DAYS", 1100, least=90)

# --- log: one line per event on standard output

LOG_LEVEL = env.text("COSTAPP_LOG_LEVEL", "INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{levelname} {name}: {message}", "style": "{"}},
    "filters": {"outage": {"()": "costapp.logs.OneLinePerOutage"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["outage"],
            "stream": "ext://sys.stdout",
        },
        "nowhere": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "costapp": {"level": LOG_LEVEL},
        "collectors": {"level": LOG_LEVEL},
        "django": {"handlers": [], "level": "WARNING"},
        "django.request": {"level": "ERROR"},
        "celery": {"level": "WARNING"},
        # they name addresses, which are secrets of channels
        "apprise": {"level": "WARNING", "handlers": ["nowhere"], "propagate": False},
        "urllib3": {"level": "ERROR"},
    },
}
