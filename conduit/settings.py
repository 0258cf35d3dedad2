"""Settings, all from the environment (contract 1). `NAME_FILE` reads the value of `NAME` from a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import environ

from conduit.core.errors import ConfigurationError
from conduit.core.source_address import parse_proxies
from conduit.database import connect_for_waiters

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()

CONDUIT_HOME = Path(env.str("CONDUIT_HOME", default=str(BASE_DIR / ".conduit"))).absolute()
CONDUIT_HOST = env.str("CONDUIT_HOST", default="127.0.0.1")


def _int(name: str, default: int, low: int, high: int) -> int:
    text = env.str(name, default=str(default))
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise ConfigurationError(
            f"{name} must be a whole number from {low} to {high}, not {text!r}. Change or unset it."
        )
    return int(text)


def _choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    text = str(env.str(name, default=default)).lower()
    if text not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, not {text!r}. Change or unset it.")
    return text


CONDUIT_PORT = _int("CONDUIT_PORT", 8080, 1, 65535)
CONDUIT_WORKERS = _int("CONDUIT_WORKERS", os.cpu_count() or 1, 1, 512)
CONDUIT_DATABASE_GRACE = _int("CONDUIT_DATABASE_GRACE", 60, 0, 86_400)
RESPONSES_RETENTION_DAYS = _int("CONDUIT_RESPONSES_RETENTION_DAYS", 30, 0, 3650)
CREDENTIAL_MAX_AGE_DAYS = _int("CONDUIT_CREDENTIAL_MAX_AGE_DAYS", 90, 0, 3650)
LOST_NODE = _choice("CONDUIT_LOST_NODE", "keep", ("keep", "release"))
LOST_NODE_AFTER = _int("CONDUIT_LOST_NODE_AFTER", 24, 1, 8760)  # hours
CONDUIT_EGRESS_ALLOW = [part.strip() for part in env.str("CONDUIT_EGRESS_ALLOW", default="").split(",") if part.strip()]
TRUSTED_PROXIES = parse_proxies(
    part.strip() for part in env.str("CONDUIT_TRUSTED_PROXIES", default="").split(",") if part.strip()
)
# Where fields of credentials may be read from by reference (providers/references.py).
CONDUIT_SECRET_FILES = [
    part.strip() for part in env.str("CONDUIT_SECRET_FILES", default="/run/secrets").split(",") if part.strip()
]
CONDUIT_VAULT_ADDR = env.str("CONDUIT_VAULT_ADDR", default="")
CONDUIT_VAULT_NAMESPACE = env.str("CONDUIT_VAULT_NAMESPACE", default="")
CONDUIT_AWS_ENDPOINT = env.str("CONDUIT_AWS_ENDPOINT", default="")


def _embedded() -> dict[str, str]:
    """What `conduit up` wrote about the engines it started: {"database_url", "valkey_url"}."""
    try:
        written: dict[str, str] = json.loads((CONDUIT_HOME / "run" / "engines.json").read_text())
        return written
    except FileNotFoundError:
        return {}


def _generated(name: str) -> str:
    """A secret that `conduit up` generated into the data directory, empty where it has not run yet."""
    path = CONDUIT_HOME / "secrets" / name
    return path.read_text().strip() if path.exists() else ""


ENGINES = _embedded()
DATABASE_URL = env.str("DATABASE_URL", default=ENGINES.get("database_url", ""))
VALKEY_URL = env.str("VALKEY_URL", default=ENGINES.get("valkey_url", ""))
EMBEDDED_DATABASE = "DATABASE_URL" not in os.environ and "DATABASE_URL_FILE" not in os.environ
EMBEDDED_VALKEY = "VALKEY_URL" not in os.environ and "VALKEY_URL_FILE" not in os.environ

CONDUIT_SANDBOX = env.bool("CONDUIT_SANDBOX", default=EMBEDDED_DATABASE and EMBEDDED_VALKEY)
SANDBOX_PORT = _int("CONDUIT_SANDBOX_PORT", min(CONDUIT_PORT + 1, 65535), 1, 65535)
SANDBOX_URL = f"http://127.0.0.1:{SANDBOX_PORT}"
JOURNAL_DIR = CONDUIT_HOME / "journal"
JOURNAL_FSYNC = _choice("CONDUIT_JOURNAL_FSYNC", "interval", ("always", "interval", "never"))
# Of one stream: seconds (0: off), bytes from the provider and pieces of content.
CONDUIT_STREAM_KEEPALIVE = _int("CONDUIT_STREAM_KEEPALIVE", 15, 0, 3600)
CONDUIT_STREAM_IDLE_TIMEOUT = _int("CONDUIT_STREAM_IDLE_TIMEOUT", 120, 0, 86_400)
CONDUIT_STREAM_TOTAL_TIMEOUT = _int("CONDUIT_STREAM_TOTAL_TIMEOUT", 3600, 0, 604_800)
CONDUIT_STREAM_MAX_BYTES = _int("CONDUIT_STREAM_MAX_BYTES", 268_435_456, 1_048_576, 2**40)
CONDUIT_STREAM_MAX_EVENTS = _int("CONDUIT_STREAM_MAX_EVENTS", 1_000_000, 1000, 10**9)
MAX_BODY_BYTES = _int("CONDUIT_MAX_BODY_MB", 32, 1, 1024) * 1024 * 1024

SECRET_KEY = env.str("DJANGO_SECRET_KEY", default=_generated("django_secret_key")) or "unset-until-conduit-up-ran"
DEBUG = env.bool("DJANGO_DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])


def _database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    query = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair)
    host = unquote(query.pop("host", "") or parts.hostname or "")
    # The pool tries a lost connection again after pauses that double, and makes no other meanwhile: it shall give up
    # soon, so that a database that comes back after a minute is found at once, not half a minute later.
    pool = {"min_size": 0, "max_size": 8, "timeout": 5, "reconnect_timeout": 1, "reconnect_failed": connect_for_waiters}
    options: dict[str, Any] = {"pool": pool, "connect_timeout": 2}
    options.update({key: unquote(value) for key, value in query.items()})
    return {
        "ENGINE": "conduit.database",
        "NAME": parts.path.lstrip("/") or "postgres",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,  # conduit.database looks at each itself
        "OPTIONS": options,
    }


DATABASES = {"default": _database(DATABASE_URL)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "access.User"

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": VALKEY_URL or "redis://127.0.0.1:1",
        "KEY_PREFIX": "conduit",
    }
}
RATELIMIT_USE_CACHE = "default"
SILENCED_SYSTEM_CHECKS = ["django_ratelimit.E003", "django_ratelimit.W001"]  # it knows only the older redis packages

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "django_htmx",
    "conduit.core",
    "conduit.access",
    "conduit.console",
    "providers",
    "keys",
    "usage",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "conduit.core.audit_origin.audit_origin",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "conduit.urls"
ASGI_APPLICATION = "conduit.asgi.application"
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
                "conduit.console.context.shell",
            ],
        },
    }
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = CONDUIT_HOME / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "servestatic.storage.CompressedManifestStaticFilesStorage"},
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"
SESSION_ENGINE = "conduit.access.sessions"  # as Django's, but the table holds a digest of the cookie
SESSION_COOKIE_NAME = "conduit_session"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("CONDUIT_TLS", default=False)
SESSION_COOKIE_AGE = 12 * 3600
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "object-src": ["'none'"],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "conduit.access.authentication.ManagementTokenAuthentication",
        "conduit.access.authentication.ConsoleSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["conduit.access.permissions.RolePermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["conduit.core.strict_json.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "conduit.core.problems.problem_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Conduit",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    # Two fields are called outcome.
    "ENUM_NAME_OVERRIDES": {
        "OutcomeEnum": ["ok", "error", "cancelled"],
        "ResolutionEnum": ["unbilled", "billed"],
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "conduit.core.proxy_reference.add",
    ],
}

CELERY_BROKER_URL = VALKEY_URL
CELERY_REDBEAT_REDIS_URL = VALKEY_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

METRICS_TOKEN = env.str("CONDUIT_METRICS_TOKEN", default="")
LOGGING_CONFIG = None  # conduit.core.logs sets structlog up
LOG_LEVEL = _choice("CONDUIT_LOG_LEVEL", "info", ("debug", "info", "warning", "error"))
