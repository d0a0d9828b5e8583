"""``manage.py verify_ledger``: do all sums agree? Exit code 1 if one does not."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from costapp.services.verify_ledger import Verified, publish, verify
from costapp.storage.connection import connect


class Command(BaseCommand):
    help = "Check every invariant of the ledger on the live data, print what was found and store it for Data health."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-publish", action="store_true", help="print only, store nothing")

    def handle(self, *, no_publish: bool, **_: Any) -> None:
        with connect(settings.DATABASE_URL) as conn:
            verified = []
            for one in verify(conn):
                self.show(one)
                verified.append(one)
        if not no_publish:
            publish(verified)
        broken = sum(one.result.differences > 0 for one in verified)
        if broken:
            raise CommandError(f"{broken} of {len(verified)} invariants do not hold.")
        self.stdout.write(f"All {len(verified)} invariants hold.")

    def show(self, one: Verified) -> None:
        check, differences, shown = one.result
        verdict = f"{differences} differences" if differences else "holds"
        self.stdout.write(f"{check.name:28} {verdict:16} {one.took_ms:7} ms   {check.invariant}")
        for difference in shown:
            self.stdout.write(
                f"    project {difference.project_id}, {difference.where}:"
                f" expected {difference.expected}, found {difference.actual}"
            )
