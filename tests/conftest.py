"""Shared by all tests: a real PostgreSQL. DATABASE_URL names one; else a throw-away embedded server is started."""

import os
import shutil
import tempfile
from pathlib import Path

import dj_database_url
import pytest
from django.conf import settings

from costapp.runtime.postgres import Postgres

# Nothing of a test outlives it, so the disk need not be waited for.
THROW_AWAY = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("COSTAPP_SECRET_KEY", "only-for-tests-" + "x" * 40)
    settings.SECRET_KEY = os.environ["COSTAPP_SECRET_KEY"]
    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = _start_server(config)
    # pytest-django has read the settings before this file, so they are corrected in place.
    settings.DATABASE_URL = os.environ["DATABASE_URL"]
    settings.DATABASES["default"].update(dj_database_url.parse(settings.DATABASE_URL))
    # Static files from their sources, whatever has been collected here; and cheap password hashes.
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STATIC_ROOT = None
    settings.WHITENOISE_USE_FINDERS = True
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def _start_server(config: pytest.Config) -> str:
    folder = Path(tempfile.mkdtemp(prefix="costapp-test-"))
    folder.chmod(0o711)  # as root the server runs under its own account, which must get in
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    server = Postgres(folder, settings=THROW_AWAY)
    server.prepare()
    log = (folder / "log").open("wb")
    config.add_cleanup(log.close)
    server.start(log)
    config.add_cleanup(server.stop)
    server.wait_ready()
    return server.url("postgres")
