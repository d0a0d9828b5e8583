"""manage.py demo_traffic: small steady traffic for the demo project, over OTLP like any app's."""

import json
import signal
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from random import Random
from types import FrameType
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from costapp import env
from costapp.models import IngestKey, Project
from costapp.services.replay.recording import Body
from costapp.services.replay.send import HttpSender, SendError
from costapp.services.seed_demo import company
from costapp.services.seed_demo.live import live_traces
from costapp.services.seed_demo.live_gpus import Exporters
from costapp.services.seed_demo.otlp import export_request
from costapp.services.seed_demo.seed import NotDemo, demo_project

HTTP = f"http://127.0.0.1:{env.number('COSTAPP_OTLP_HTTP_PORT', 4318)}"
KEY_NAME = "demo traffic"
RETRY_S = 5.0
GUARD_S = 0.25


class Command(BaseCommand):
    help = "Send small steady traffic to the demo project until stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--http", default=HTTP, metavar="URL", help="OTLP/HTTP address (%(default)s)")
        parser.add_argument("--per-second", type=float, default=0.5, help="traces per second (%(default)s)")
        parser.add_argument("--seed", action="store_true", help="first seed the days that are missing")
        parser.add_argument("--traces", type=int, default=0, help="stop after so many (default: never)")

    def handle(self, **options: Any) -> None:
        if options["per_second"] <= 0:
            raise CommandError("--per-second must be above 0.")
        signal.signal(signal.SIGTERM, _stop)
        try:
            project = demo_project()
            if options["seed"]:
                call_command("seed_demo", stdout=self.stdout)
            self._send(project, fresh_key(project), options)
        except NotDemo as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.stdout.write("demo traffic: stopped")

    def _send(self, project: Project, key: str, options: dict[str, Any]) -> None:
        sender = HttpSender(options["http"], key, patience_s=0)
        traces = live_traces(
            project.created_at.date(), per_second=options["per_second"], rng=Random(),
            is_stopped=lambda session: guard_blocks(options["http"], key, session),
        )  # fmt: skip
        exporters = Exporters(Random())
        for number, (wait_s, spans) in enumerate(traces, start=1):
            time.sleep(wait_s)
            exporters.saw(spans)
            requests = [("traces", export_request(spans)), ("metrics", exporters.report(datetime.now(UTC)))]
            for signal_name, request in requests:
                if request is not None:
                    self._send_one(sender, signal_name, request.SerializeToString())
            if number == options["traces"]:
                return

    def _send_one(self, sender: HttpSender, kind: str, data: bytes) -> None:
        body = Body("live", kind, f"/v1/{kind}", "application/x-protobuf", "identity", data)
        try:
            sender.send(body, data)
        except SendError as error:  # the collector may be starting or stopping
            self.stderr.write(f"demo traffic: {error}")
            time.sleep(RETRY_S)


def fresh_key(project: Project) -> str:
    """A new key for this run; the previous run's key is thrown away, as its plain text is lost."""
    IngestKey.objects.filter(project=project, name=KEY_NAME).delete()
    _, plain = IngestKey.issue(project, KEY_NAME)
    return plain


def guard_blocks(http: str, key: str, session: str) -> bool:
    """What an app does before each call (examples/guard_loop.py): ask, and go on when nobody answers."""
    question = urlencode({"feature": company.RUNAWAY_LOOP.feature, "session": session})
    request = Request(f"{http}/api/v1/guard?{question}", headers={"x-api-key": key})
    direct = build_opener(ProxyHandler({}))  # a proxy of the shell is for other hosts
    try:
        with direct.open(request, timeout=GUARD_S) as answer:
            return bool(json.load(answer).get("decision") == "block")
    except (OSError, ValueError):
        return False


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
