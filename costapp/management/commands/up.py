"""``manage.py up``: hands over to the supervisor, which needs no Django."""

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from costapp.runtime.up import CHECKOUT


class Command(BaseCommand):
    help = "Start database, broker, pages, collectors and workers, and keep them up. See --help of this command."
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        kwargs["add_help"] = False
        return super().create_parser(prog_name, subcommand, **kwargs)

    def run_from_argv(self, argv: list[str]) -> None:
        os.chdir(CHECKOUT)
        os.execv(sys.executable, [sys.executable, "-m", "costapp.runtime", *argv[2:]])

    def handle(self, *args: Any, **options: Any) -> None:
        raise AssertionError("run_from_argv replaces this process")
