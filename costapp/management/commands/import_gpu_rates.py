"""manage.py import_gpu_rates: dated prices of GPU pools from a CSV file."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from costapp.models import Project
from costapp.services.gpu_rate_csv import COLUMNS, GpuRateError, import_gpu_rates

MAX_FILE_BYTES = 20_000_000


class Command(BaseCommand):
    help = f"Import GPU rates of a project. Running it again changes nothing. CSV columns: {', '.join(COLUMNS)}."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", metavar="SLUG", required=True)
        parser.add_argument("--csv", metavar="FILE", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
            raise CommandError(f"There is no project {options['project']}. Projects: {known}.")
        path = Path(options["csv"])
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise CommandError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes.")
            result = import_gpu_rates(project, path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise CommandError(f"{path} is not UTF-8 text. Save it as CSV UTF-8.") from None
        except GpuRateError as error:
            raise CommandError(f"{path} was not imported.\n{error}") from None
        self.stdout.write(f"{result.added} rates added, {result.changed} changed, {result.unchanged} unchanged.")
        if result.added or result.changed:
            self.stdout.write("GPU hours that they cover are worked out again within a minute.")
