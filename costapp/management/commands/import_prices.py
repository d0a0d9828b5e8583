"""manage.py import_prices: the catalogue of the genai-prices package, or a project's own list."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from costapp.models import Project
from costapp.services.import_prices import MAX_CHANGES, ImportResult, import_catalogue, import_csv
from costapp.services.price_csv import COLUMNS, PriceListError

MAX_FILE_BYTES = 10_000_000


class Command(BaseCommand):
    help = (
        "Import the public price catalogue (genai-prices), or with --csv a project's own list. "
        f"Running it again changes nothing. CSV columns: {', '.join(COLUMNS)}."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--csv", metavar="FILE", help="own prices; the file is the whole list")
        parser.add_argument("--project", metavar="SLUG", help="whose list it is")
        parser.add_argument("--list", default="own prices", metavar="NAME", help="default: %(default)s")
        parser.add_argument("--dry-run", action="store_true", help="show what a list would change, write nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["csv"]:
            if options["project"] or options["dry_run"]:
                raise CommandError("--project and --dry-run belong to --csv FILE.")
            self._show(import_catalogue(), verbosity=options["verbosity"], changes=False)
            return
        project = Project.objects.filter(slug=options["project"] or "").first()
        if project is None:
            known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
            raise CommandError(f"--csv needs --project SLUG. Projects: {known}.")
        result = self._import(project, options)
        self._show(result, verbosity=options["verbosity"], changes=True)
        if options["dry_run"]:
            self.stdout.write("Nothing was written (--dry-run).")
        elif result.changed:
            self.stdout.write("New calls use these prices now. For calls already booked: manage.py reprice,")
            self.stdout.write("or Re-price history in the admin.")

    def _import(self, project: Project, options: dict[str, Any]) -> ImportResult:
        path = Path(options["csv"])
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise CommandError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes.")
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise CommandError(f"{path} is not UTF-8 text. Save it as CSV UTF-8.") from None
        try:
            return import_csv(project, text, name=options["list"], source=path.name, dry_run=options["dry_run"])
        except PriceListError as error:
            raise CommandError(f"{path} was not imported.\n{error}") from None

    def _show(self, result: ImportResult, *, verbosity: int, changes: bool) -> None:
        if not verbosity:
            return
        for change in result.changes if changes else ():
            self.stdout.write(change)
        if changes and len(result.changes) >= MAX_CHANGES:
            self.stdout.write("... and more")
        self.stdout.write(result.sentence())
        for item in result.skipped if verbosity > 1 else ():
            self.stdout.write(f"  not used, no span states it: {item}")
