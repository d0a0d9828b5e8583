"""How long an app waits for the guard: idle, and while spans are ingested.

    python -m benchmarks.guard [--rates 0 4000] [--seconds 30] [--per-second 100]

Starts the whole product in a folder of its own, with guardrails that block and warn some hundred sessions, and asks
`GET /api/v1/guard` steadily from a few kept connections, as apps do; idle first, then beside a steady load of spans.
Prints the server's own time (Server-Timing) and what the client measured. The client, the sender of the spans and the
product share the machine. The goal: p99 below 10 ms on the server's own timer. For comparison it asks the web
process's /healthz, the least that Django can be asked, at the same pace.
"""

import argparse
import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from benchmarks import conditions
from benchmarks.end_to_end import Sender, prepare
from benchmarks.stack import Stack, running

CONNECTIONS = 4
STOPS = 300
_TIMING = re.compile(rb"server-timing: guard;dur=([\d.]+)")

_GUARDRAILS = """
insert into costapp_guardrail (project_id, name, enabled, per, metric, limit_value, minutes, feature, environment,
                               action, hold_minutes, level, created_at)
select id, 'Benchmark', true, 'session', 'calls', 100000, 5, '', '', 'block', null, 'warning', now()
from costapp_project where slug = 'default' returning id, project_id
"""
_STATES = """
insert into guard_state (project_id, guardrail_id, subject, opened_at, crossed_to, until, value, is_open, alert_key)
select %s, %s, 's-' || n, now(), now(), now() + interval '1 hour', 100000 + n, true, 'bench-' || n
from generate_series(1, %s) n
"""


class Times(NamedTuple):
    server_ms: list[float]
    client_ms: list[float]


async def ask(port: int, requests: Sequence[bytes], *, seconds: float, per_second: float) -> Times:
    """Steady questions over a few kept connections; a late answer delays only the next one of its connection."""
    times = Times([], [])
    start = time.monotonic()

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in range(number, int(seconds * per_second), CONNECTIONS):
            await asyncio.sleep(start + turn / per_second - time.monotonic())
            began = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            if length := re.search(rb"content-length: (\d+)", head.lower()):
                await reader.readexactly(int(length[1]))
            else:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            times.client_ms.append((time.perf_counter() - began) * 1000)
            assert head.startswith(b"HTTP/1.1 200"), head
            timing = _TIMING.search(head.lower())
            times.server_ms.append(float(timing[1]) if timing else 0.0)
        writer.close()

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    return times


def questions(key: str) -> list[bytes]:
    """Half of them about sessions that are blocked."""
    head = f"HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n"
    return [f"GET /api/v1/guard?feature=bot&user=u-{n}&session=s-{n * 2} {head}".encode() for n in range(1, STOPS)]


def line(what: str, values: Sequence[float]) -> str:
    ordered = sorted(values)
    p50, p95, p99 = (ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] for percent in (50, 95, 99))
    return f"{what} p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms, worst {ordered[-1]:.1f} ms"


async def measure(stack: Stack, rate: int, seconds: int, per_second: float) -> None:
    load = prepare(rate, seconds) if rate else None
    sending = asyncio.create_task(Sender(stack).run(load, seconds, f"guard-{rate}")) if load else None
    health = [b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"]
    guard, web = await asyncio.gather(
        ask(stack.http_port, questions(stack.key), seconds=seconds, per_second=per_second),
        ask(stack.web_port, health, seconds=seconds, per_second=per_second),
    )
    beside = f"{rate:,} spans/s" if rate else "idle"
    print(f"  {beside}: {len(guard.client_ms):,} questions at {per_second:.0f} per second")
    print(f"    guard, server's own timer: {line('', guard.server_ms).strip()}")
    print(f"    guard, as the client saw:  {line('', guard.client_ms).strip()}")
    print(f"    /healthz of the web process, as the client saw: {line('', web.client_ms).strip()}")
    if sending is not None:
        sent = await sending
        print(f"    spans: {sent.busy} answers were not 200, the last one {sent.late_s:.2f} s late")


def set_up(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute(_GUARDRAILS).fetchone()
    assert row
    connection.execute(_STATES, (row[1], row[0], STOPS))


async def run(rates: Sequence[int], seconds: int, per_second: float) -> None:
    with running() as stack, psycopg.connect(stack.database_url, autocommit=True) as connection:
        set_up(connection)
        await asyncio.sleep(5)
        for rate in rates:
            await measure(stack, rate, seconds, per_second)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 4000], help="spans per second beside it")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--per-second", type=float, default=100, help="questions (%(default)s)")
    options = parser.parse_args()
    print("The guard")
    for text in conditions.lines():
        print("  " + text)
    asyncio.run(run(options.rates, options.seconds, options.per_second))


if __name__ == "__main__":
    main()
