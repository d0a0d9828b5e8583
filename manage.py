#!/usr/bin/env python
"""Django's command line: ``python manage.py help`` lists what Costapp adds."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "costapp.settings")
    import psycopg
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    try:
        execute_from_command_line(sys.argv)
    except (OperationalError, psycopg.OperationalError) as error:
        reason = str(error).strip().splitlines()[0]
        sys.exit(f"The database gives no answer ({reason}). Start it with `make run`, or point DATABASE_URL at it.")


if __name__ == "__main__":
    main()
