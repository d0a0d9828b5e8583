"""manage.py reprice: bring booked charges up to today's prices, with the difference shown first."""

import json
from datetime import UTC, date, datetime, time
from typing import Any

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from costapp.core.money import format_nano, format_usd
from costapp.models import Project
from costapp.services.reprice import Difference, Repriced, reprice
from costapp.storage.connection import connect
from costapp.storage.rates import unpriced_models

UNATTRIBUTED = "(unattributed)"
MAX_ROWS = 200
MAX_GAPS = 10


class Command(BaseCommand):
    help = "Price booked charges again by today's rates. With --dry-run it only shows the difference."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", metavar="SLUG", help="default: every project")
        parser.add_argument("--from", dest="first", metavar="DATE", type=_day, help="first day (UTC), like 2026-01-31")
        parser.add_argument("--to", dest="last", metavar="DATE", type=_day, help="last day (UTC)")
        parser.add_argument("--dry-run", action="store_true", help="show the difference, change nothing")
        parser.add_argument("--json", action="store_true", help="machine-readable output")

    def handle(self, *args: Any, **options: Any) -> None:
        first, last = _as_day(options["first"]), _as_day(options["last"])
        if first and last and last < first:
            raise CommandError(f"--to {last} is before --from {first}.")
        results = []
        with connect(settings.DATABASE_URL, application_name="costapp-reprice") as conn:
            for project in _projects(options["project"]):
                result = reprice(conn, project, first=first, last=last, dry_run=options["dry_run"])
                results.append(result)
                if not options["json"]:
                    self._show(result)
                    self._show_gaps(conn, project, result)
        if not results and not options["json"]:
            self.stdout.write("There are no projects.")
        if options["json"]:
            self.stdout.write(json.dumps({"projects": [_as_json(result) for result in results]}, indent=2))

    def _show_gaps(self, conn: psycopg.Connection[Any], project: Project, result: Repriced) -> None:
        """What no price list covers: the next thing to do."""
        if result.dry_run or result.first is None:
            return
        since = datetime.combine(result.first, time(), UTC)
        gaps = [gap for gap in unpriced_models(conn, project.pk, since) if gap.without_rate]
        for gap in gaps[:MAX_GAPS]:
            name = f"{gap.provider or 'unknown provider'}/{gap.model or 'unknown model'}"
            self.stdout.write(f"  still without a price: {name}, {gap.without_rate:,} requests")

    def _show(self, result: Repriced) -> None:
        if result.resumed_at:
            self.stdout.write(f"{result.project}: went on at {result.resumed_at}, where an earlier run stopped.")
        for row in result.differences[:MAX_ROWS]:
            self.stdout.write(f"  {_row_text(row)}")
        if len(result.differences) > MAX_ROWS:
            self.stdout.write(
                f"  ... and {len(result.differences) - MAX_ROWS:,} more days and features (--json has all)"
            )
        self.stdout.write(_sentence(result))
        if result.prices_moved:
            self.stdout.write(f"{result.project}: prices changed meanwhile. Run it again for the charges done before.")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text!r} is not a date. Write it like 2026-01-31.") from None


def _as_day(value: date | str | None) -> date | None:
    return _day(value) if isinstance(value, str) else value


def _projects(slug: str | None) -> list[Project]:
    projects = list(Project.objects.order_by("slug"))
    if slug is None:
        return projects
    chosen = [project for project in projects if project.slug == slug]
    if not chosen:
        known = ", ".join(project.slug for project in projects) or "none yet"
        raise CommandError(f"There is no project {slug!r}. Projects: {known}.")
    return chosen


def _row_text(row: Difference) -> str:
    text = f"{row.day}  {row.feature or UNATTRIBUTED}: {format_usd(row.old_nano)} -> {format_usd(row.new_nano)}"
    parts = [f"{row.changed:,} of {row.requests:,} requests"]
    parts += [f"{row.newly_priced:,} priced for the first time"] if row.newly_priced else []
    parts += [f"{row.newly_unpriced:,} without a price now"] if row.newly_unpriced else []
    return f"{text} ({_signed(row.difference_nano)}; {', '.join(parts)})"


def _signed(nano: int) -> str:
    return ("+" if nano > 0 else "") + format_usd(nano)


def _sentence(result: Repriced) -> str:
    if result.first is None:
        return f"{result.project}: there are no charges."
    days = f"{result.first} to {result.last}"
    if not result.changed:
        return f"{result.project}: all {result.requests:,} requests of {days} have today's prices already."
    verb = "would change" if result.dry_run else "changed"
    tail = " Nothing was written (--dry-run)." if result.dry_run else " Pages follow within seconds."
    return (
        f"{result.project}, {days}: {result.changed:,} of {result.requests:,} requests {verb}, "
        f"{format_usd(result.old_nano)} -> {format_usd(result.new_nano)} ({_signed(result.difference_nano)})." + tail
    )


def _as_json(result: Repriced) -> dict[str, Any]:
    return {
        "project": result.project,
        "dry_run": result.dry_run,
        "first_day": result.first and str(result.first),
        "last_day": result.last and str(result.last),
        "requests": result.requests,
        "changed": result.changed,
        "newly_priced": result.newly_priced,
        "newly_unpriced": result.newly_unpriced,
        "old_nano": result.old_nano,
        "new_nano": result.new_nano,
        "difference_nano": result.difference_nano,
        "difference": format_nano(result.difference_nano),
        "by_day_and_feature": [
            {
                "day": str(row.day),
                "feature": row.feature,
                "requests": row.requests,
                "changed": row.changed,
                "newly_priced": row.newly_priced,
                "newly_unpriced": row.newly_unpriced,
                "old_nano": row.old_nano,
                "new_nano": row.new_nano,
                "difference_nano": row.difference_nano,
            }
            for row in result.differences
        ],
    }
