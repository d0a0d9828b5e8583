"""manage.py rotate_field_keys: seal every stored secret anew with the first of COSTAPP_FIELD_KEYS."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from costapp.services.rotate import rotate
from costapp.services.sealed import CannotSeal


class Command(BaseCommand):
    help = "Seal every stored secret with the first of COSTAPP_FIELD_KEYS. Afterwards the other keys can go."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = rotate()
        except CannotSeal as problem:
            raise CommandError(str(problem)) from None
        self.stdout.write(f"{done.resealed} secrets sealed anew, {done.current} were already.")
        for name in done.lost:
            self.stdout.write(f"{name}: its key is not among COSTAPP_FIELD_KEYS. Enter the secret again.")
        if done.lost:
            raise CommandError(f"{len(done.lost)} secrets could not be opened. Keep the old keys, or enter them again.")
