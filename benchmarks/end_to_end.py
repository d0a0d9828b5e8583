"""All of it together: from 200 OK to visible, at a steady load, on this machine.

    python -m benchmarks.end_to_end [--rates 4000 8000] [--seconds 30]

Starts the whole product (`make run`) in a folder of its own and sends realistic traces at a steady rate over
OTLP/HTTP. Every second one more trace carries a feature of its own; it counts as visible when that feature is in
the sums that pages read (five-minute, hourly and daily). A rate is sustained when every request was answered
200 on time, 95 % of the probes were visible within ten seconds, and nothing was left to do soon after the load ended.
The sender shares the machine with the product. Prints memory by part, CPU by part and bytes on disk.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from benchmarks import conditions, traces
from benchmarks.stack import Stack, running

SPANS_PER_REQUEST = 512
CONNECTIONS = 4
POLL_S = 0.25
VISIBLE_LIMIT_S = 10.0
SETTLE_LIMIT_S = 120.0
CALLS = ("chat", "embeddings")
Connection = psycopg.Connection[Any]

_VISIBLE = """
select feature from rollup_5m where feature like 'probe-%'
intersect select feature from rollup_hour where feature like 'probe-%'
intersect select feature from rollup_day where feature like 'probe-%'
"""
_LEFT = """
select exists (select 1 from dirty_trace) or exists (select 1 from dirty_cell)
"""
_COUNTS = "select (select count(*) from span), (select count(*) from charge), (select sum(requests) from rollup_hour)"
_SIZE = """
select coalesce(sum(pg_total_relation_size(inhrelid)), 0) from pg_inherits where inhparent = %s::regclass
"""


class Load(NamedTuple):
    """Bodies to send at a steady rate, and how many model calls are in them."""

    bodies: list[bytes]
    calls: int


class Sent(NamedTuple):
    late_s: float  # how far behind its time the last request was answered
    committed: dict[str, float]  # probe -> when its 200 arrived
    busy: int  # answers that were not 200


def prepare(rate: int, seconds: int) -> Load:
    """Made ahead, so that making them does not load the machine while it is measured."""
    requests = list(traces.requests(spans=rate * seconds // SPANS_PER_REQUEST * SPANS_PER_REQUEST, seed=time.time_ns()))
    return Load([request.SerializeToString() for request in requests], sum(map(calls_in, requests)))


def calls_in(request: Any) -> int:
    spans = (span for group in request.resource_spans for scope in group.scope_spans for span in scope.spans)
    return sum(span.name.split(" ")[0] in CALLS for span in spans)


def probe(name: str) -> bytes:
    """One trace of its own feature, happening now."""
    dice = random.Random(name)
    request = next(traces.requests(spans=8, per_request=8, seed=dice.getrandbits(32), end_ns=time.time_ns()))
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano = time.time_ns() - 1_000_000
        span.end_time_unix_nano = time.time_ns()
        for attribute in span.attributes:
            if attribute.key == "app.feature":
                attribute.value.string_value = name
    return request.SerializeToString()


class Sender:
    """Keeps to a timetable over a few kept connections."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self.busy, self.committed, self.late_s = stack, 0, dict[str, float](), 0.0

    async def run(self, load: Load, seconds: int, tag: str) -> Sent:
        start, step = time.monotonic() + 0.5, seconds / len(load.bodies)
        timetable = iter([(start + number * step, body) for number, body in enumerate(load.bodies)])
        tasks = [self._connection(timetable) for _ in range(CONNECTIONS)]
        await asyncio.gather(*tasks, self._probes(start, seconds, tag))
        return Sent(self.late_s, self.committed, self.busy)

    async def _connection(self, timetable: Any) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._stack.http_port)
        for due, body in timetable:
            await asyncio.sleep(due - time.monotonic())
            self.busy += await self._post(reader, writer, body) != 200
            self.late_s = time.monotonic() - due
        writer.close()

    async def _probes(self, start: float, seconds: int, tag: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._stack.http_port)
        for number in range(seconds):
            await asyncio.sleep(start + number + 0.37 - time.monotonic())
            name = f"probe-{tag}-{number}"
            if await self._post(reader, writer, probe(name)) == 200:
                self.committed[name] = time.monotonic()
        writer.close()

    async def _post(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> int:
        head = (
            f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._stack.key}\r\n"
            f"content-type: application/x-protobuf\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(line for line in answer.split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        return int(answer.split(b" ", 2)[1])


class Watch:
    """Looks every quarter of a second which probes have become visible, and how much memory is used."""

    def __init__(self, connection: Connection, stack: Stack) -> None:
        self._connection, self._stack = connection, stack
        self.visible: dict[str, float] = {}
        self.memory: dict[str, float] = {}

    async def run(self, done: asyncio.Event) -> None:
        looks = 0
        while not done.is_set() or (self._left() and looks < SETTLE_LIMIT_S / POLL_S):
            await asyncio.to_thread(self._look, with_memory=looks % 8 == 0)
            looks += done.is_set()
            await asyncio.sleep(POLL_S)
        await asyncio.to_thread(self._look, with_memory=True)

    def _left(self) -> bool:
        row = self._connection.execute(_LEFT).fetchone()
        return bool(row and row[0])

    def _look(self, *, with_memory: bool) -> None:
        for (name,) in self._connection.execute(_VISIBLE):
            self.visible.setdefault(name, time.monotonic())
        if with_memory:
            for part, mib in self._stack.memory_mib().items():
                self.memory[part] = max(mib, self.memory.get(part, 0.0))


async def measure(stack: Stack, connection: Connection, rate: int, seconds: int) -> None:
    load = prepare(rate, seconds)
    before, cpu_before = counts(connection), stack.cpu_s()
    sender, watch, done = Sender(stack), Watch(connection, stack), asyncio.Event()
    watching = asyncio.create_task(watch.run(done))
    sent = await sender.run(load, seconds, str(rate))
    ended = time.monotonic()
    done.set()
    await watching
    settled_s = time.monotonic() - ended
    after, cpu = counts(connection), stack.cpu_s()
    delays = sorted(watch.visible[name] - at for name, at in sent.committed.items() if name in watch.visible)
    report(rate, seconds, sent, delays, settled_s)
    probes = len(sent.committed)
    expected = (len(load.bodies) * SPANS_PER_REQUEST + probes * 8, load.calls)
    check(expected, [now - then for now, then in zip(after, before, strict=True)], sent.busy, probes)
    spans = after[0] - before[0]
    parts = sorted(cpu, key=lambda part: cpu_before.get(part, 0) - cpu[part])
    spent = ", ".join(f"{part} {(cpu[part] - cpu_before.get(part, 0)) / spans * 100_000:.2f}" for part in parts)
    print(f"    CPU seconds per 100k spans: {spent}")
    print("    " + memory_line("memory at most", watch.memory))


def report(rate: int, seconds: int, sent: Sent, delays: Sequence[float], settled_s: float) -> None:
    middle = statistics.median(delays) if delays else float("inf")
    p95 = delays[max(0, -(-len(delays) * 95 // 100) - 1)] if delays else float("inf")
    on_time = sent.late_s < 2 and not sent.busy and len(delays) == len(sent.committed) == seconds
    sustained = on_time and p95 <= VISIBLE_LIMIT_S and settled_s <= 2 * VISIBLE_LIMIT_S
    print(
        f"  {rate:,} spans/s for {seconds} s: {'sustained' if sustained else 'NOT sustained'};"
        f" 200 OK to visible p50 {middle:.1f} s, p95 {p95:.1f} s, worst {max(delays, default=0):.1f} s"
        f" ({len(delays)} of {seconds} probes); last answer {sent.late_s:.2f} s late, {sent.busy} not 200;"
        f" all done {settled_s:.1f} s after the load"
    )


def check(expected: tuple[int, int], grown: Sequence[int], busy: int, probes: int) -> None:
    """Nothing acknowledged may be missing, whatever the speed."""
    spans, charges, requests = grown
    if not busy and spans != expected[0]:
        raise SystemExit(f"{expected[0]} spans were acknowledged and {spans} are stored")
    if charges != requests:
        raise SystemExit(f"{charges} charges, but the sums count {requests} requests")
    if not busy and not expected[1] + 2 * probes <= charges <= expected[1] + 3 * probes:
        raise SystemExit(f"{expected[1]} calls were sent (and {probes} probes), {charges} are charged")


def counts(connection: Connection) -> tuple[int, int, int]:
    row = connection.execute(_COUNTS).fetchone()
    assert row
    return int(row[0]), int(row[1]), int(row[2] or 0)


def memory_line(what: str, memory: dict[str, float]) -> str:
    parts = ", ".join(f"{part} {mib:.0f}" for part, mib in sorted(memory.items(), key=lambda item: -item[1]))
    return f"{what}: {sum(memory.values()):.0f} MiB ({parts})"


def disk(connection: Connection) -> str:
    """Of what the load has left behind, indexes included, as it lies on disk."""
    spans, charges, _ = counts(connection)
    sizes = []
    for table in ("span", "charge"):
        row = connection.execute(_SIZE, (table,)).fetchone()
        assert row
        sizes.append(int(row[0]))
    per_span, per_charge = sizes[0] / spans, sizes[1] / charges
    return f"on disk, indexes included: {per_span:.0f} bytes per span, {per_charge:.0f} bytes per inference"


async def run(rates: Sequence[int], seconds: int) -> None:
    with running() as stack, psycopg.connect(stack.database_url, autocommit=True) as connection:
        print(f"  first start: {stack.start_s:.1f} s from the command to the sign-in (packages installed)")
        await asyncio.sleep(10)
        print("  " + memory_line("idle memory", stack.memory_mib()))
        for rate in rates:
            await measure(stack, connection, rate, seconds)
        print("  " + disk(connection))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rates", type=int, nargs="+", default=[4000, 8000], help="spans per second, one run each")
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    print("All of it together")
    for line in conditions.lines():
        print("  " + line)
    asyncio.run(run(options.rates, options.seconds))


if __name__ == "__main__":
    main()
