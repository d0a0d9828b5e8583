"""manage.py import_prices: the catalogue of the genai-prices package, or a project's own list."""

from typing import Any

from django.core.management.base import BaseCommand

from costapp.services.import_prices import import_catalogue


class Command(BaseCommand):
    help = "Import the public price catalogue (genai-prices). Running it again changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        result = import_catalogue()
        self.stdout.write(result.sentence())
        for item in result.skipped:
            self.stdout.write(f"  not used, no span states it: {item}")
