"""Group commit: threads that store whatever requests are waiting in one transaction, then let them answer.

A request is answered only after COMMIT, so nothing acknowledged can be lost. While one transaction runs, the
next requests are decoded and gather for the next one: the busier, the larger the transactions.

In one transaction: COPY the spans straight into `span`, mark their traces dirty, note the sums in
`ingest_log`. If a span is stored already, the COPY fails on the primary key; then everything is rolled back
and done again through a staging table that leaves out what is stored.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors

from collectors.batch import Batch
from collectors.counters import Counters
from collectors.errors import BAD_DATA, Refusal, unavailable
from collectors.settings import Settings
from costapp.storage import gpu_samples, ingest_log, metric_points, span_content, spans

Connection = psycopg.Connection[Any]
log = logging.getLogger("costapp.collectors")

_RETRIES = 5
_RETRY_AT_ONCE = (errors.DeadlockDetected, errors.SerializationFailure)
# The database is away, being stopped, full or too slow, or its schema is older than this collector needs.
_NOT_NOW = (psycopg.OperationalError, psycopg.InterfaceError, errors.UndefinedTable, errors.UndefinedColumn,
            errors.ReadOnlySqlTransaction, errors.InsufficientResources, errors.InternalError)  # fmt: skip
_RECONNECT_SECONDS = 0.5
LATE_NS = 3600 * 1_000_000_000  # spans that started longer ago than this arrive late: closed hours change again
AWAY = "The database is not reachable at the moment. Nothing of this request was stored; send it again."


class Writer:
    """Owns the queue and the connections. `submit` may be called from any thread."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._waiting: deque[Batch] = deque()
        self._queued = 0  # rows in _waiting
        self._condition = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"writer-{number}", daemon=True)
            for number in range(settings.writers)
        ]
        self.database_up = True

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what is queued, then return."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join(self._settings.shutdown_seconds)

    @property
    def queued(self) -> int:
        return self._queued

    def submit(self, batch: Batch) -> None:
        """Queue a batch; its `on_done` is called from a writer thread once it is committed or refused."""
        with self._condition:
            self._waiting.append(batch)
            self._queued += batch.weight
            self._counters.set("queue_spans", self._queued)
            self._condition.notify()

    def _take(self) -> list[Batch]:
        """Waiting batches for one transaction; empty if there is nothing to do for a while or ever again."""
        with self._condition:
            if not self._waiting and not self._stopping:
                self._condition.wait(_RECONNECT_SECONDS)
            taken: list[Batch] = []
            room = self._settings.batch_spans
            while self._waiting and (not taken or self._waiting[0].weight <= room):
                batch = self._waiting.popleft()
                room -= batch.weight
                taken.append(batch)
            self._queued -= sum(batch.weight for batch in taken)
            self._counters.set("queue_spans", self._queued)
            return taken

    def _run(self) -> None:
        connection: Connection | None = None
        while True:
            batches = self._take()
            if not batches and self._stopping:
                break
            if batches or not self.database_up:
                connection = self._store(connection, batches)
        if connection is not None:
            connection.close()

    def _store(self, connection: Connection | None, batches: list[Batch]) -> Connection | None:
        """Store and answer the batches; returns the connection to use next. Never raises."""
        used_before = connection is not None and not connection.closed
        try:
            if connection is None or connection.closed:
                connection = self._connect()
            self._up(True)
            self._commit_with_retries(connection, batches)
        except _NOT_NOW as error:
            if used_before and connection is not None and connection.closed:
                return self._store(None, batches)  # it was cut while idle; storing twice changes nothing
            self._failed(error, batches)
            _discard(connection)
            return None
        except Exception as error:
            if len(batches) > 1:  # one of them is the culprit: the others must not suffer
                for batch in batches:
                    connection = self._store(connection, [batch])
                return connection
            log.exception("A batch could not be stored: %s", type(error).__name__)
            self._counters.add("write_errors_total", kind=type(error).__name__)
            _answer(batches, Refusal(BAD_DATA, "unstorable", "PostgreSQL refused this request's values."))
            _discard(connection)
            return None
        _answer(batches, None)
        return connection

    def _connect(self) -> Connection:
        return psycopg.connect(
            self._settings.database_url,
            autocommit=True,
            connect_timeout=3,
            application_name="costapp collector",
            options=f"-c statement_timeout={self._settings.write_seconds}s -c idle_in_transaction_session_timeout=30s",
        )

    def _up(self, up: bool) -> None:
        if up != self.database_up:
            log.warning("The database is %s.", "back" if up else "away: answering 503 until it is back")
        self.database_up = up
        self._counters.set("database_up", int(up))

    def _failed(self, error: Exception, batches: list[Batch]) -> None:
        self._counters.add("write_errors_total", kind=type(error).__name__)
        if isinstance(error, errors.QueryCanceled):
            refusal = unavailable("write_timeout", "The database is too slow at the moment; send it again.")
        else:
            self._up(False)
            refusal = unavailable("database_away", AWAY, retry_seconds=2)
        _answer(batches, refusal)
        if not batches:
            time.sleep(_RECONNECT_SECONDS)

    def _commit_with_retries(self, connection: Connection, batches: list[Batch]) -> None:
        if not batches:
            connection.execute("select 1")
            return
        rows = spans.first_of_each(row for batch in batches for row in batch.rows)
        commit = self._commit_new
        for attempt in range(_RETRIES + 1):
            try:
                commit(connection, batches, rows)
                return
            except errors.UniqueViolation:
                self._counters.add("slow_path_total")
                commit = self._commit_any
            except _RETRY_AT_ONCE as error:
                self._counters.add("write_errors_total", kind=type(error).__name__)
                if attempt == _RETRIES:
                    raise
        raise errors.SerializationFailure("gave up")  # a UniqueViolation on the last attempt

    def _commit_new(self, connection: Connection, batches: list[Batch], rows: list[bytes]) -> None:
        """Hoping that no span is stored yet."""
        with connection.transaction():
            inserted = spans.insert_new_rows(connection, rows) if rows else spans.Inserted([], {})
            self._finish(connection, batches, inserted)

    def _commit_any(self, connection: Connection, batches: list[Batch], rows: list[bytes]) -> None:
        with connection.transaction():
            self._finish(connection, batches, spans.insert_rows(connection, rows))

    def _finish(self, connection: Connection, batches: list[Batch], inserted: spans.Inserted) -> None:
        spans.mark_traces(connection, inserted.new_rows)
        _count(batches, inserted)
        for batch in batches:
            batch.stored += _insert_points(connection, batch) + _insert_gpu(connection, batch)
            span_content.insert_content(connection, batch.content)
        ingest_log.append_entries(connection, log_entries(batches))
        self._counters.add("commits_total")


def _count(batches: Sequence[Batch], inserted: spans.Inserted) -> None:
    """Which spans of each batch are stored by this transaction; one that several batches bring counts once."""
    conflicts = dict(inserted.conflicts)
    all_new = len(inserted.new_rows) == sum(len(batch.rows) for batch in batches)
    new_keys = set() if all_new else {row[: spans.KEY_BYTES] for row in inserted.new_rows}
    for batch in batches:
        mine = set() if all_new else new_keys.intersection(row[: spans.KEY_BYTES] for row in batch.rows)
        new_keys -= mine
        batch.stored = len(batch.rows) if all_new else len(mine)
        batch.duplicates = len(batch.rows) - batch.stored
        batch.conflicts = conflicts.pop(batch.project_id, 0)


def _insert_points(connection: Connection, batch: Batch) -> int:
    if not batch.points:
        return 0
    rows = [metric_points.point_row(batch.project_id, **point._asdict()) for point in batch.points]
    stored = metric_points.insert_points(connection, rows)
    batch.duplicates += len(rows) - stored
    return stored


def _insert_gpu(connection: Connection, batch: Batch) -> int:
    """How many data points are stored for the first time: those of a slot that was known already are repeats."""
    rows = len(batch.gpu_samples) + len(batch.engine_samples) + len(batch.gaps)
    if not rows:
        return 0
    new = gpu_samples.insert_samples(connection, batch.project_id, batch.gpu_samples)
    new += gpu_samples.insert_engine_samples(connection, batch.project_id, batch.engine_samples)
    new += gpu_samples.insert_gaps(connection, batch.project_id, batch.gaps)
    stored = batch.gpu_points * new // rows
    batch.duplicates += batch.gpu_points - stored
    return stored


def log_entries(batches: Sequence[Batch]) -> list[ingest_log.LogEntry]:
    """One entry per project, key, signal and transport."""
    groups: dict[tuple[int, int | None, str, str], list[Batch]] = {}
    for batch in batches:
        groups.setdefault((batch.project_id, batch.key_id, batch.signal, batch.transport), []).append(batch)
    on_time_ns = time.time_ns() - LATE_NS
    return [_log_entry(group, on_time_ns) for group in groups.values()]


def _log_entry(group: list[Batch], on_time_ns: int) -> ingest_log.LogEntry:
    reasons: Counter[str] = Counter()
    for batch in group:
        reasons += batch.rejected + batch.odd
        reasons["conflict"] += batch.conflicts
        reasons["arrived_late"] += spans.count_started_before(batch.rows, on_time_ns)
    first = group[0]
    return ingest_log.LogEntry(
        project_id=first.project_id,
        key_id=first.key_id,
        signal=first.signal,
        transport=first.transport,
        requests=len(group),
        received=sum(batch.received for batch in group),
        stored=sum(batch.stored for batch in group),
        duplicates=sum(batch.duplicates for batch in group),
        rejected=sum(batch.rejected.total() for batch in group),
        bytes=sum(batch.wire_bytes for batch in group),
        reasons=+reasons,
    )


def _answer(batches: Sequence[Batch], refusal: Refusal | None) -> None:
    for batch in batches:
        if batch.on_done is not None:
            batch.on_done(batch, refusal)


def _discard(connection: Connection | None) -> None:
    if connection is not None:
        connection.close()
