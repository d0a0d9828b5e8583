"""manage.py replay DIR: send recorded OTLP bodies through the running collectors and print what was understood."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError
from django.utils import timezone

from costapp import env
from costapp.core.money import format_usd
from costapp.models import IngestKey
from costapp.models.project import hash_key
from costapp.services.replay import NotUnderstoodInTime, Order, replay
from costapp.services.replay.recording import Recording, RecordingError, load
from costapp.services.replay.send import GrpcSender, HttpSender, Sender, SendError
from costapp.services.replay.understood import SUMS

HTTP = f"http://127.0.0.1:{env.number('COSTAPP_OTLP_HTTP_PORT', 4318)}"
_HEADS = ("calls", "failed", "unknown", "input", "cache read", "cache write", "output", "reasoning", "unpriced", "cost")


class Command(BaseCommand):
    help = "Send a folder of recorded OTLP bodies through the running collectors and print what was understood."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "directory", type=Path, metavar="DIR", help="recorded bodies; a manifest.json in it describes them"
        )
        parser.add_argument("--http", default=HTTP, metavar="URL", help="OTLP/HTTP address (%(default)s)")
        parser.add_argument("--key", required=True, help="ingest key of the project to send to")
        parser.add_argument("--grpc", action="store_true", help="send over OTLP/gRPC instead")
        parser.add_argument("--grpc-endpoint", metavar="HOST:PORT", help="OTLP/gRPC address (the HTTP host, port 4317)")
        parser.add_argument("--repeat", type=int, default=1, metavar="N", help="send every body N times")
        parser.add_argument("--reverse", action="store_true", help="last body first")
        parser.add_argument("--shuffle", type=int, metavar="SEED", help="mix the bodies of all recordings, repeatably")
        parser.add_argument(
            "--keep-ids", action="store_true", help="send the very bytes: what is stored already changes nothing"
        )
        parser.add_argument("--only", metavar="TEXT", default="", help="only recordings whose id contains TEXT")
        parser.add_argument(
            "--wait", type=float, default=60, metavar="SECONDS", help="for attribution (%(default)s); 0 = do not wait"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        if options["repeat"] < 1 or options["wait"] < 0:
            raise CommandError("--repeat must be at least 1 and --wait at least 0.")
        try:
            recordings = [recording for recording in load(options["directory"]) if options["only"] in recording.id]
            report = self._replay(recordings, options)
        except (RecordingError, SendError, NotUnderstoodInTime) as error:
            raise CommandError(str(error)) from error
        except (psycopg.OperationalError, OperationalError) as error:
            raise CommandError(f"The database at DATABASE_URL cannot be reached: {error}") from error
        self.stdout.write(json.dumps(report, indent=1) if options["json"] else table(report))

    def _replay(self, recordings: list[Recording], options: dict[str, Any]) -> dict[str, Any]:
        sender, project_id = _sender(options), _project_of(options["key"])
        order = Order(repeat=options["repeat"], reverse=options["reverse"], shuffle=options["shuffle"])
        try:
            with psycopg.connect(settings.DATABASE_URL) as conn:
                return replay(
                    conn,
                    recordings,
                    sender,
                    project_id=project_id,
                    order=order,
                    keep_ids=options["keep_ids"],
                    wait_s=options["wait"],
                )
        finally:
            sender.close()


def _sender(options: dict[str, Any]) -> Sender:
    if not (options["grpc"] or options["grpc_endpoint"]):
        return HttpSender(options["http"], options["key"], patience_s=options["wait"])
    url = options["http"] if "//" in options["http"] else "//" + options["http"]
    endpoint = options["grpc_endpoint"] or f"{urlsplit(url).hostname}:{env.number('COSTAPP_OTLP_GRPC_PORT', 4317)}"
    return GrpcSender(endpoint, options["key"], patience_s=options["wait"])


def _project_of(key: str) -> int:
    """The project whose results are read. A key that is unknown here would be refused by the collector as well."""
    found = IngestKey.objects.filter(key_hash=hash_key(key)).first()
    if found is None:
        raise SendError(
            "The key is refused: the database at DATABASE_URL does not know it. Is it the database of this collector?"
        )
    if found.revoked_at or (found.expires_at and found.expires_at <= timezone.now()):
        raise SendError(f"The key is refused: {found.name!r} was revoked or has expired. Make a new one in the admin.")
    return found.project_id


def table(report: dict[str, Any]) -> str:
    """The report for a person: a line per recording, then its calls that need a word."""
    width = max([len(one["id"]) for one in report["recordings"]] + [9])
    lines = [f"{'recording':<{width}}" + "".join(f"{head:>13}" for head in _HEADS)]
    for one in report["recordings"]:
        lines.append(_row(one["id"], one, width) + _verdict(one))
        lines += [f"    {remark}" for remark in one["remarks"]]
    lines.append(_row("total", report["totals"], width))
    return "\n".join(lines)


def _row(name: str, sums: dict[str, Any], width: int) -> str:
    numbers = "".join(f"{sums[column]:>13,}" for column in (*SUMS, "unpriced"))
    return f"{name:<{width}}{numbers}{format_usd(sums['cost_nano']):>13}"


def _verdict(one: dict[str, Any]) -> str:
    if "differences" not in one:
        return ""
    return "  differs: " + ", ".join(one["differences"]) if one["differences"] else "  matches"
