"""manage.py seed_demo: sixty days of an invented company in a project of its own."""

import time
from argparse import ArgumentParser
from typing import Any

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError
from django.utils import timezone

from costapp.services.seed_demo import company
from costapp.services.seed_demo.seed import NotDemo, Progress, seed_demo
from costapp.services.verify_ledger import verify_and_publish


class Command(BaseCommand):
    help = "Fill the demo project with sixty days of an invented company. Run again, it adds what is missing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--days", type=int, default=company.DAYS, help="how far back (%(default)s)")
        parser.add_argument("--scale", type=float, default=1.0, help="times as many sessions (%(default)s)")

    def handle(self, **options: Any) -> None:
        started = time.monotonic()

        def tell(progress: Progress) -> None:
            self.stdout.write(
                f"demo data: {progress.day} stored, day {progress.days_done} of {progress.days},"
                f" {progress.spans:,} spans, {time.monotonic() - started:.0f} s"
            )
            self.stdout.flush()

        try:
            with psycopg.connect(settings.DATABASE_URL, autocommit=True) as conn:
                project = seed_demo(conn, now=timezone.now(), days=options["days"], scale=options["scale"], tell=tell)
                holds = verify_and_publish(conn)
        except NotDemo as error:
            raise CommandError(str(error)) from error
        except (psycopg.OperationalError, OperationalError) as error:
            raise CommandError(f"The database at DATABASE_URL cannot be used: {error}") from error
        ledger = "every invariant of the ledger holds" if holds else "manage.py verify_ledger finds differences"
        self.stdout.write(f"demo data: {project.name} is ready after {time.monotonic() - started:.0f} s; {ledger}")
