"""The line that both servers share: admit, decompress, decode, hand to the writer, answer after COMMIT."""

import asyncio
import contextlib
import ctypes
import logging
import shutil
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

from collectors import wire
from collectors.auth import Keys
from collectors.batch import ITEMS, Batch
from collectors.bodies import decompress
from collectors.counters import Counters
from collectors.decode import Decoder, make_decoder
from collectors.dialects import Recogniser
from collectors.errors import Refusal, unavailable
from collectors.gpu import remote_write
from collectors.gpu.remote_write import RemoteWrite
from collectors.gpu.samples import Samples
from collectors.limits import Hold, Memory, Rate
from collectors.settings import Settings
from collectors.writer import AWAY, Writer
from costapp.storage.ingest_log import LogEntry, append_entries
from costapp.storage.keys import KeyRecord
from costapp.storage.spans import dirty_traces_exceed

log = logging.getLogger("costapp.collectors")

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
REMOTE_WRITE, SCRAPE = "remote-write", "scrape"  # transports, beside http and grpc
_DECODERS = 128  # projects and encodings whose caches are kept
_WATCH_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class Request:
    """One request before it is decoded. `reply_json` and the encoding of the body are the same thing."""

    signal: str
    transport: str
    key: KeyRecord
    body: bytes
    content_encoding: str = ""
    is_json: bool = False


class Notes:
    """What happened to requests that reached no transaction, until it is written to `ingest_log`."""

    def __init__(self) -> None:
        self._entries: dict[tuple[int, int | None, str, str], LogEntry] = {}

    def add(self, batch: Batch, *, received: int, rejected: int, reasons: Counter[str]) -> None:
        key = (batch.project_id, batch.key_id, batch.signal, batch.transport)
        old = self._entries.get(key) or LogEntry(*key, 0, 0, 0, 0, 0, 0, Counter())
        self._entries[key] = old._replace(
            requests=old.requests + 1,
            received=old.received + received,
            rejected=old.rejected + rejected,
            bytes=old.bytes + batch.wire_bytes,
            reasons=Counter(old.reasons) + reasons,
        )

    def take(self) -> list[LogEntry]:
        entries, self._entries = self._entries, {}
        return list(entries.values())


class Ingest:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counters = Counters()
        self.keys = Keys(settings, self.counters)
        self.writer = Writer(settings, self.counters)
        self.memory = Memory(settings.memory_bytes, self.counters)
        self._span_rate = Rate(settings.spans_per_second, "spans")
        self._byte_rate = Rate(settings.bytes_per_second, "bytes")
        self._decoders: OrderedDict[tuple[Any, ...], Decoder] = OrderedDict()
        self._remote_writers: dict[int, RemoteWrite] = {}
        self._notes = Notes()
        self._closed_for: Refusal | None = None  # set by watch(): the outbox or the disk is full
        self.stopping = False

    def admit(self, key: KeyRecord | None = None) -> None:
        """Refuse early what could not be stored anyway, before any work is spent on it."""
        if self.stopping:
            raise unavailable("stopping", "The collector is being stopped; send it again.")
        if not self.writer.database_up:
            raise unavailable("database_away", AWAY, retry_seconds=2)
        if self._closed_for is not None:
            raise self._closed_for
        if self.writer.queued > self.settings.queue_spans:
            raise unavailable("queue_full", "Too many spans are waiting to be stored; send it again.")
        if key is not None:
            self._span_rate.check(key.key_id)
            self._byte_rate.check(key.key_id)

    async def export(self, request: Request, hold: Hold) -> bytes:
        """Store a request; returns the encoded answer. Refusal if nothing of it was stored."""
        key = request.key
        batch = Batch(key.project_id, key.key_id, request.signal, request.transport, len(request.body))
        self._byte_rate.charge(key.key_id, len(request.body))
        self.counters.add("bytes_total", len(request.body), transport=request.transport)
        if request.transport == REMOTE_WRITE:
            await self._decode_remote_write(batch, request, hold)
        else:
            body = decompress(request.body, request.content_encoding, limit=self.settings.body_bytes, hold=hold)
            await self._decode(body, batch, request)
        self._span_rate.charge(key.key_id, batch.received)
        await self.store(batch)
        return b"" if request.transport == REMOTE_WRITE else _answer(batch, is_json=request.is_json)

    async def store(self, batch: Batch) -> None:
        """Wait until the batch is committed. Refusal if it is not."""
        await self._store(batch)
        self._count(batch)

    async def _decode_remote_write(self, batch: Batch, request: Request, hold: Hold) -> None:
        limit = self.settings.body_bytes
        body = remote_write.decompress(request.body, request.content_encoding, limit=limit, hold=hold)
        reader = self._remote_writers.setdefault(batch.project_id, RemoteWrite())
        if len(self._remote_writers) > _DECODERS:
            self._remote_writers.clear()
        samples = self.new_samples()
        for _ in reader.decode(body, batch, samples, limit=self.settings.spans):
            await asyncio.sleep(0)
        batch.add_samples(samples)

    def new_samples(self) -> Samples:
        return Samples(now_ns=time.time_ns(), keep_days=self.settings.retention_days)

    async def _decode(self, body: bytes, batch: Batch, request: Request) -> None:
        for _ in self._decoder(request.key, request.is_json).decode(body, batch):
            await asyncio.sleep(0)

    def _decoder(self, key: KeyRecord, is_json: bool) -> Decoder:
        """Projects with the same wishes could share one, but their hash secrets differ."""
        names = orjson.dumps(key.attribute_names, option=orjson.OPT_SORT_KEYS)
        identity = (key.project_id, is_json, key.store_content, bytes(key.hash_secret), names)
        decoder = self._decoders.get(identity)
        if decoder is None:
            recogniser = Recogniser(
                key.attribute_names, hash_secret=bytes(key.hash_secret), store_content=key.store_content
            )
            decoder = self._decoders[identity] = make_decoder(recogniser, self.settings, is_json=is_json)
            if len(self._decoders) > _DECODERS:
                self._decoders.popitem(last=False)
        else:
            self._decoders.move_to_end(identity)
        return decoder

    async def _store(self, batch: Batch) -> None:
        """Wait for the commit. Requests without anything to write are answered at once and noted later."""
        if not batch.weight:
            reasons = batch.rejected + batch.odd
            self._notes.add(batch, received=batch.received, rejected=batch.rejected.total(), reasons=reasons)
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish(refusal: Refusal | None) -> None:
            if not done.done():
                done.set_result(None) if refusal is None else done.set_exception(refusal)

        batch.on_done = lambda _, refusal: _call_threadsafe(loop, finish, refusal)
        self.writer.submit(batch)
        try:
            async with asyncio.timeout(self.settings.answer_seconds):
                await done
        except TimeoutError:
            raise unavailable("commit_timeout", "Storing took too long; send it again.") from None

    def _count(self, batch: Batch) -> None:
        add = self.counters.add
        labels = {"signal": batch.signal, "transport": batch.transport}
        add("received_total", batch.received, **labels)
        add("stored_total", batch.stored, **labels)
        add("duplicates_total", batch.duplicates, **labels)
        add("conflicts_total", batch.conflicts, **labels)
        add("ignored_total", batch.ignored, signal=batch.signal)
        for reason, count in batch.rejected.items():
            add("rejected_total", count, reason=reason)
        for reason, count in batch.odd.items():
            add("odd_total", count, reason=reason)

    @contextlib.contextmanager
    def noting(self, key: KeyRecord, signal: str, transport: str) -> Iterator[None]:
        """Note a refusal in the project's log. It counts as one rejected item, unless the sender will try again."""
        try:
            yield
        except Refusal as refusal:
            batch = Batch(key.project_id, key.key_id, signal, transport, 0)
            rejected = 0 if refusal.retry_after else 1
            self._notes.add(batch, received=0, rejected=rejected, reasons=Counter({refusal.reason: 1}))
            raise

    def count_refusal(self, refusal: Refusal, transport: str) -> None:
        self.counters.add("requests_total", transport=transport, status=str(refusal.kind.http_status))
        self.counters.add("rejected_total", reason=refusal.reason)

    async def ready(self) -> bool:
        """Whether a request could be stored now."""
        try:
            return bool(await self.keys.check(_schema_exists)) and not self.stopping
        except psycopg.Error:
            return False

    async def watch(self) -> None:
        """Until cancelled: look after what no request waits for. Nothing here may end the loop."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                await self._watch_once()
            except (psycopg.Error, OSError) as error:
                log.warning("Housekeeping was put off: %s", type(error).__name__)

    async def _watch_once(self) -> None:
        self._closed_for = self._disk_refusal()
        if not self.memory.used:
            _release_memory()
        if not self.writer.database_up:
            return
        await self.keys.note_use()
        await self.flush_notes()
        limit = self.settings.outbox_traces
        if limit and await self.keys.check(lambda conn: dirty_traces_exceed(conn, limit)):
            self._closed_for = unavailable(
                "outbox_full", "Attribution is far behind; send it again later.", retry_seconds=30
            )

    async def flush_notes(self) -> None:
        entries = self._notes.take()
        if entries:
            await self.keys.check(lambda conn: append_entries(conn, entries))

    def _disk_refusal(self) -> Refusal | None:
        if not self.settings.disk_path:
            return None
        usage = shutil.disk_usage(self.settings.disk_path)
        if usage.used * 100 < usage.total * self.settings.disk_percent:
            return None
        return unavailable("disk_full", "The database's disk is nearly full.", retry_seconds=60)

    def start(self) -> None:
        self.writer.start()

    async def stop(self) -> None:
        """Finish what was admitted. The servers must have stopped accepting before."""
        await asyncio.get_running_loop().run_in_executor(None, self.writer.stop)
        try:
            await self.flush_notes()
            await self.keys.note_use()
        except psycopg.Error:
            log.warning("Some counts of refused requests were lost: the database is away.")
        self.keys.close()


def _release_memory() -> None:
    """Give memory that large requests left free back to the system. Only glibc needs to be told."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def _schema_exists(conn: psycopg.Connection[Any]) -> bool:
    row = conn.execute("select to_regclass('span') is not null and not pg_is_in_recovery()").fetchone()
    return bool(row and row[0])


def _call_threadsafe(loop: asyncio.AbstractEventLoop, call: Callable[[Refusal | None], None], refusal: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for the answer any more
        loop.call_soon_threadsafe(call, refusal)


_FIXES = {
    "invalid_trace_id": "trace_id must be 16 bytes (32 hex digits in JSON) and not all zero",
    "invalid_span_id": "span_id must be 8 bytes (16 hex digits in JSON) and not all zero",
    "too_many_items": "the request holds more items than COSTAPP_MAX_SPANS_PER_REQUEST; send smaller batches",
    "gpu_time_out_of_range": "the point's time is more than five minutes ahead or older than samples are kept",
    "gpu_not_a_number": "the value is no finite number",
    "gpu_sentinel": "the exporter had no value and sent its placeholder",
    "gpu_out_of_range": "no GPU or server can have such a value; see docs/gpu.md",
    "gpu_no_device": "the point names no device; it needs a UUID, or an index and a host",
    "gpu_delta_counter": "the counter is sent as delta; send it cumulative",
    "gpu_bad_line": "the series cannot be parsed",
    "scrape_failed": "the endpoint could not be scraped; its target in the admin says why",
    "span_too_large": "the span states more than COSTAPP_MAX_FACTS_BYTES; shorten its attributes",
}
_JSON_NAMES = {"traces": "rejectedSpans", "metrics": "rejectedDataPoints", "logs": "rejectedLogRecords"}


def _answer(batch: Batch, *, is_json: bool) -> bytes:
    """The Export...ServiceResponse: empty, or with the exact count of what was rejected and how to fix it."""
    rejected = batch.rejected.total()
    if not rejected:
        return b"{}" if is_json else b""
    message = f"{rejected} of {batch.received} {ITEMS[batch.signal]} were rejected, the rest is stored: " + "; ".join(
        f"{count} x {reason} ({_FIXES[reason]})" for reason, count in sorted(batch.rejected.items())
    )
    if is_json:
        partial = {_JSON_NAMES[batch.signal]: str(rejected), "errorMessage": message}
        return orjson.dumps({"partialSuccess": partial})
    response = wire.ExportResponse(partial_success={"rejected": rejected, "error_message": message})
    return bytes(response.SerializeToString())
