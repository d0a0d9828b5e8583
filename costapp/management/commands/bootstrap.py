"""``manage.py bootstrap``: everything between an empty database and the first page. Safe to repeat and to run twice
at once."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection

from costapp import env
from costapp.runtime.home import write_private
from costapp.services.collect_static import collect_if_changed
from costapp.services.first_project import FirstSignIn, create_first_project
from costapp.services.import_prices import catalogue_is_current
from costapp.services.seed_demo.seed import demo_project

LOCK = 0x0C057A99  # any number that nothing else locks


class Command(BaseCommand):
    help = "Bring the database up to date and make the first administrator, project and ingest key when there is none."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--credentials", type=Path, help="write the first sign-in to this file, do not print it")
        parser.add_argument("--demo", action="store_true", help="make a project for demo data as well")

    def handle(self, *, credentials: Path | None, demo: bool, **_: Any) -> None:
        with alone():
            call_command("migrate", verbosity=0, interactive=False)
            call_command("partitions", verbosity=0)
            if not catalogue_is_current():
                self.import_prices()
            if settings.STATIC_ROOT:
                collect_if_changed(settings.STATIC_ROOT)
            first = create_first_project(password=env.text("COSTAPP_ADMIN_PASSWORD"))
            if first:
                self.hand_over(first, credentials)
            if demo:
                demo_project()  # filled by demo_traffic, so that the first page need not wait for it

    def import_prices(self) -> None:
        told = StringIO()
        call_command("import_prices", stdout=told)
        self.stdout.write("    " + told.getvalue().partition("\n")[0])

    def hand_over(self, first: FirstSignIn, path: Path | None) -> None:
        if path:
            write_private(path, json.dumps(asdict(first)))
            return
        self.stdout.write(
            f"First account: {first.user}   password: {first.password}\n"
            f"First project: {first.project}   ingest key: {first.key}\n"
            "Shown only this once: keep both."
        )


@contextmanager
def alone() -> Iterator[None]:
    """One bootstrap at a time, also from several containers; the lock ends with its connection."""
    lock = connection.copy()
    with lock.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(%s)", [LOCK])
    try:
        yield
    finally:
        lock.close()
