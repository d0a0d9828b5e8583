"""``manage.py partitions``: make the partitions of the coming days and of rows that wait for one."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from costapp.services.retention import make_partitions
from costapp.storage.connection import connect


class Command(BaseCommand):
    help = "Make table partitions for the coming days, and move rows that arrived before theirs existed."

    def handle(self, *, verbosity: int, **_: Any) -> None:
        with connect(settings.DATABASE_URL) as conn:
            made = make_partitions(conn)
        if verbosity:
            self.stdout.write("\n".join(made) if made else "All partitions are there.")
