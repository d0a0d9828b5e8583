"""From the 200 OK of the span that crosses a limit to the message received by a web server.

    python -m benchmarks.message [--rates 0 4000] [--incidents 20]

Starts the whole product in a folder of its own, with guardrails of five calls per session and a Slack channel whose
address is a web server of this process. One incident after the other, at an uneven pace: four calls of a session, then
the fifth in a request of its own, and the clock runs from its 200 OK until the message that names the session has
arrived. First alone, then beside a steady load of spans. The goal: 95 % within 15 seconds.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks import conditions
from benchmarks.end_to_end import Sender, prepare
from benchmarks.stack import Stack, running

LIMIT = 5
APART_S = 2.0
WAIT_S = 60.0


class Inbox:
    """When each session's message arrived."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.arrived: dict[str, list[float]] = {}

    def take(self, body: bytes) -> None:
        at, text = time.monotonic(), body.decode()
        for session in {word for word in text.replace('"', " ").split() if word.startswith("bench-")}:
            self.arrived.setdefault(session, []).append(at)


@contextmanager
def slack() -> Iterator[Inbox]:
    """A web server that answers as Slack's incoming webhooks do."""
    inbox = Inbox(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            inbox.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inbox.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield inbox
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def product(inbox: Inbox) -> Iterator[Stack]:
    """All of Costapp, with leave to send to the web server of this process."""
    os.environ |= {
        "COSTAPP_FIELD_KEYS": secrets.token_urlsafe(32),
        "COSTAPP_ALLOW_PRIVATE_TARGETS": f"127.0.0.1/32:{inbox.port}",
        "COSTAPP_ALERT_MESSAGES_PER_HOUR": "10000",
    }
    with running() as stack:
        yield stack


def set_up(stack: Stack, inbox: Inbox, sessions: Sequence[str]) -> None:
    """A guardrail for each session's feature, so that no two incidents are grouped into one message."""
    os.environ |= {"DATABASE_URL": stack.database_url, "DJANGO_SETTINGS_MODULE": "costapp.settings"}
    import django

    django.setup()
    from costapp.models import Channel, Guardrail, Project
    from costapp.services import sealed

    project = Project.objects.get(slug="default")
    channel = Channel(project=project, name="#bench", kind=Channel.Kind.SLACK_WEBHOOK)
    secret = {"url": f"http://127.0.0.1:{inbox.port}/services/T0/B0/x"}
    channel.key_id, channel.secret = sealed.seal(secret, str(channel.seal_id))
    channel.save()
    for session in sessions:
        made = Guardrail.objects.create(project=project, name=session, limit_value=LIMIT, feature=f"feature-{session}")
        made.channels.add(channel)


def calls(session: str, numbers: Sequence[int]) -> bytes:
    """An OTLP request with model calls of a session that happen now."""
    now_ns = time.time_ns()
    texts = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
        "session.id": session, "app.feature": f"feature-{session}",
    }  # fmt: skip
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in texts.items()]
    attributes.append({"key": "gen_ai.usage.input_tokens", "value": {"intValue": "1000"}})
    spans = [
        {
            "traceId": secrets.token_hex(16), "spanId": secrets.token_hex(8), "name": "chat gpt-4o-mini", "kind": 3,
            "startTimeUnixNano": str(now_ns - 1_000_000 * (10 - number)), "endTimeUnixNano": str(now_ns),
            "attributes": attributes,
        }
        for number in numbers
    ]  # fmt: skip
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def send(stack: Stack, body: bytes) -> float:
    """When the 200 OK had arrived."""
    headers = {"content-type": "application/json", "x-api-key": stack.key}
    request = urllib.request.Request(f"http://127.0.0.1:{stack.http_port}/v1/traces", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    return time.monotonic()


async def measure(stack: Stack, inbox: Inbox, sessions: Sequence[str], rate: int) -> None:
    dice = random.Random(rate)
    seconds = int(len(sessions) * APART_S * 1.6) + 15
    load = prepare(rate, seconds) if rate else None
    sending = asyncio.create_task(Sender(stack).run(load, seconds, f"message-{rate}")) if load else None
    crossed = {}
    for session in sessions:
        await asyncio.to_thread(send, stack, calls(session, range(LIMIT - 1)))
        await asyncio.sleep(APART_S * dice.uniform(0.5, 1.5))
        crossed[session] = await asyncio.to_thread(send, stack, calls(session, [LIMIT - 1]))
    deadline = time.monotonic() + WAIT_S
    while set(sessions) - set(inbox.arrived) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    delays = sorted(inbox.arrived[session][0] - at for session, at in crossed.items() if session in inbox.arrived)
    twice = sum(len(times) > 1 for session, times in inbox.arrived.items() if session in crossed)
    report(rate, len(sessions), delays, twice)
    if sending is not None:
        sent = await sending
        print(f"    spans: {sent.busy} answers were not 200, the last one {sent.late_s:.2f} s late")


def report(rate: int, incidents: int, delays: Sequence[float], twice: int) -> None:
    beside = f"{rate:,} spans/s" if rate else "alone"
    if not delays:
        raise SystemExit(f"  {beside}: no message of {incidents} arrived")
    p50, p95 = (delays[min(len(delays) - 1, len(delays) * percent // 100)] for percent in (50, 95))
    print(
        f"  {beside}: 200 OK to message received p50 {p50:.1f} s, p95 {p95:.1f} s, worst {delays[-1]:.1f} s"
        f" ({len(delays)} of {incidents} arrived, {twice} more than once)"
    )


async def run(rates: Sequence[int], incidents: int) -> None:
    names = {rate: [f"bench-{rate}-{number}" for number in range(incidents)] for rate in rates}
    with slack() as inbox, product(inbox) as stack:
        await asyncio.to_thread(set_up, stack, inbox, [session for each in names.values() for session in each])
        await asyncio.sleep(5)
        for rate in rates:
            await measure(stack, inbox, names[rate], rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 4000], help="spans per second beside it")
    parser.add_argument("--incidents", type=int, default=20, help="per rate (%(default)s)")
    options = parser.parse_args()
    print("From a crossing to its message")
    for text in conditions.lines():
        print("  " + text)
    asyncio.run(run(options.rates, options.incidents))


if __name__ == "__main__":
    main()
