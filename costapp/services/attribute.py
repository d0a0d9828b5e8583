"""From marked traces to charges: claim, gather, resolve, price, write what differs, mark what changed.

One transaction per call. A charge is a function of the stored spans of its trace set and of the price
list; the shard locks make sure that the last one to write has seen all that was committed before.
"""

import gc
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

import psycopg

from costapp.core.calls import resolve
from costapp.core.engines import Rule, Work, own, work_of
from costapp.core.pricing import RateBook, with_gpu
from costapp.core.token_rules import TokenRules
from costapp.core.values import Call
from costapp.services.gather import Gatherer, TraceSet
from costapp.services.guardrails.mark import mark_callers
from costapp.storage import charges, gpu_calls, outbox, partitions, traces
from costapp.storage.charges import Booked, Key
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.gpu_calls import Share
from costapp.storage.outbox import SHARDS, Mark, shard_of
from costapp.storage.rates import load_rate_book, rates_version
from costapp.storage.token_rules import load_token_rules
from costapp.storage.traces import Node, Oddity

log = logging.getLogger(__name__)

_Made = TypeVar("_Made")

ATTEMPTS = 5
#: The database does not accept a row: a defect of ours that trying again would only repeat.
REFUSED = (psycopg.DataError, psycopg.IntegrityError)
#: Spans of an oversize trace per page.
PAGE_SPANS = 5_000


class Outcome(NamedTuple):
    """What one call did."""

    marks: int = 0  #: claimed and worked on
    charges: int = 0  #: rows written or deleted
    deferred: int = 0  #: given back, because another worker has part of the set
    busy_shards: frozenset[int] = frozenset()  #: all shards that the deferred sets need


def attribute_shard(conn: psycopg.Connection, shard: int, *, limit: int = 2000) -> int:
    """Resolve and price up to ``limit`` marked traces of one shard. Returns how many marks were worked on."""
    return attribute_shards(conn, [shard], limit=limit).marks


def attribute_shards(
    conn: psycopg.Connection, shards: Iterable[int], *, limit: int, wait: bool = False, force: bool = False
) -> Outcome:
    """Resolve and price up to ``limit`` marked traces of each shard that can be locked.

    ``wait`` waits for the locks (in ascending order) instead of skipping busy shards; ``force`` does not let
    oversize traces rest. Deadlocks and serialization failures are retried.
    """
    require_autocommit(conn)
    ordered = sorted(set(shards))
    with _no_cycle_search():
        try:
            return _retried(conn, ordered, limit=limit, wait=wait, force=force)
        except REFUSED:
            return _one_by_one(conn, ordered, limit=limit, force=force)


@contextmanager
def _no_cycle_search() -> Iterator[None]:
    """A batch keeps some 100,000 small objects without a cycle among them: looking for cycles costs a tenth of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _retried(conn: psycopg.Connection, shards: Sequence[int], *, limit: int, wait: bool, force: bool) -> Outcome:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with conn.transaction():
                return _Batch(conn, force=force).run(shards, limit=limit, wait=wait)
        except RETRYABLE:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def attribute_pending(conn: psycopg.Connection, *, group: int, groups: int, budget_s: float, limit: int = 4000) -> int:
    """Work through the marked shards of one group until they are empty or the time is up. Returns charges written.

    All of them in one transaction, because most ticks find a few marks in each. Sets that another worker has part
    of are tried once more, waiting for the locks in order.
    """
    deadline = time.monotonic() + budget_s
    written = 0
    while shards := [shard for shard in outbox.marked_shards(conn) if shard % groups == group]:
        each = max(1, limit // len(shards))
        outcomes = [attribute_shards(conn, shards, limit=each)]
        if busy := outcomes[0].busy_shards:
            outcomes.append(attribute_shards(conn, busy, limit=each, wait=True))
        written += sum(outcome.charges for outcome in outcomes)
        if time.monotonic() > deadline or not any(outcome.marks for outcome in outcomes):
            break
    return written


def _one_by_one(conn: psycopg.Connection, shards: Sequence[int], *, limit: int, force: bool) -> Outcome:
    """After the database refused a batch: trace by trace, setting aside the ones it refuses."""
    total = Outcome()
    for shard in shards:
        for _ in range(limit):
            try:
                outcome = _retried(conn, [shard], limit=1, wait=True, force=force)
            except REFUSED as error:
                outcome = Outcome(marks=_set_aside(conn, shard, error))
            total = Outcome(total.marks + outcome.marks, total.charges + outcome.charges)
            if not outcome.marks:
                break
    return total


def _set_aside(conn: psycopg.Connection, shard: int, error: Exception) -> int:
    """Take the first mark out of the queue and report its trace: a defect must not stop the traces behind it."""
    with conn.transaction():
        outbox.lock_shard(conn, shard)
        marks = outbox.claim(conn, shard, limit=1)
        for mark in marks:
            log.error("The charges of trace %s were refused: %s", mark.trace_id.hex(), error)
            oddity = Oddity((mark.day, mark.trace_id), "failed", f"{type(error).__name__}: {error}"[:500])
            traces.report_odd(conn, mark.project_id, oddity=oddity)
    return len(marks)


class _Batch:
    """One transaction: the locks it holds and what it has found so far."""

    def __init__(self, conn: psycopg.Connection, *, force: bool) -> None:
        self._conn = conn
        self._force = force
        self._locked: set[int] = set()
        self._token_rules: dict[int, TokenRules] = {}
        self._mappings: dict[int, list[Rule]] = {}

    def run(self, shards: Sequence[int], *, limit: int, wait: bool) -> Outcome:
        marks: list[Mark] = []
        for shard in shards:
            if wait:
                outbox.lock_shard(self._conn, shard)
                self._locked.add(shard)
            if self._lock(shard):
                marks += outbox.claim(self._conn, shard, limit=limit)
        by_project: dict[int, list[Mark]] = defaultdict(list)
        for mark in marks:
            by_project[mark.project_id].append(mark)
        outcomes = [self._project(project_id, by_project[project_id]) for project_id in sorted(by_project)]
        return Outcome(
            sum(outcome.marks for outcome in outcomes),
            sum(outcome.charges for outcome in outcomes),
            sum(outcome.deferred for outcome in outcomes),
            frozenset().union(*(outcome.busy_shards for outcome in outcomes)),
        )

    def _lock(self, shard: int) -> bool:
        if shard in self._locked:
            return True
        if outbox.try_lock_shard(self._conn, shard):
            self._locked.add(shard)
            return True
        return False

    def _project(self, project_id: int, marks: Sequence[Mark]) -> Outcome:
        by_node = {(mark.day, mark.trace_id): mark for mark in marks}
        gathered = Gatherer(self._conn, project_id, try_lock=self._lock).gather(by_node)
        postponed, alone = self._oversize(project_id, gathered.oversize)
        back = [by_node[node] for node in {*gathered.deferred, *postponed} if node in by_node]
        outbox.put_back(self._conn, back)
        reasons = {mark.trace_id: mark.reason for mark in marks if mark.reason}
        written = alone + self._write_sets(project_id, gathered.sets, reasons)
        in_the_way = gathered.busy_shards | {shard_of(trace_id) for _, trace_id in gathered.deferred}
        return Outcome(len(by_node) - len(back), written, len(back), frozenset(in_the_way))

    def _write_sets(self, project_id: int, sets: Sequence[TraceSet], reasons: Mapping[bytes, str]) -> int:
        """Charges of whole sets: what they yield is booked, what they no longer yield is deleted."""
        mappings, rules = self._engine_rules(project_id), self._rules(project_id)
        found: list[tuple[TraceSet, list[Call]]] = []
        for trace_set in sets:
            calls = self._guarded(project_id, trace_set, partial(_calls, trace_set, rules, mappings))
            if calls is not None:
                found.append((trace_set, calls))
        works = {
            charges.key_of(call): work for _, calls in found for call in calls if (work := work_of(call)) is not None
        }
        shares = gpu_calls.load_shares(self._conn, project_id, keys=works.keys())
        book = rate_book(self._conn, project_id)
        resolved: list[TraceSet] = []
        rows: list[charges.Row] = []
        for trace_set, calls in found:
            made = self._guarded(project_id, trace_set, partial(_rows, project_id, calls, book, shares))
            if made is not None:
                resolved.append(trace_set)
                rows += made
        traces.clear_failed(self._conn, project_id, trace_ids=[id_ for done in resolved for _, id_ in done.nodes])
        return self._write(project_id, resolved, rows, works, reasons)

    def _guarded(self, project_id: int, trace_set: TraceSet, make: Callable[[], list[_Made]]) -> list[_Made] | None:
        """What is made of one set; ``None`` if that fails, which must not stop the others."""
        try:
            return make()
        except Exception as error:
            log.exception("Trace %s could not be resolved.", trace_set.nodes[0][1].hex())
            for node in trace_set.nodes:
                oddity = Oddity(node, "failed", f"{type(error).__name__}: {error}"[:500])
                traces.report_odd(self._conn, project_id, oddity=oddity)
            return None

    def _rules(self, project_id: int) -> TokenRules:
        if project_id not in self._token_rules:
            self._token_rules[project_id] = load_token_rules(self._conn, project_id)
        return self._token_rules[project_id]

    def _engine_rules(self, project_id: int) -> list[Rule]:
        if project_id not in self._mappings:
            self._mappings[project_id] = gpu_calls.load_rules(self._conn, project_id)
        return self._mappings[project_id]

    def _write(
        self, project_id: int, sets: Sequence[TraceSet], rows: Sequence[charges.Row], works: Mapping[Key, Work],
        reasons: Mapping[bytes, str],
    ) -> int:  # fmt: skip
        rows = _without_expired(rows, partitions.horizon(self._conn, "charge"))
        booked = self._booked(project_id, sets)
        closed_to = partitions.horizon(self._conn, "span")
        open_rows = [row for row in rows if row.key not in booked or not _is_closed(row.key, closed_to)]
        gone = booked.keys() - {row.key for row in rows}
        changes = charges.write(
            self._conn, project_id, rows=open_rows, booked=booked,
            gone=[key for key in gone if not _is_closed(key, closed_to)], reasons=reasons,
        )  # fmt: skip
        charges.record(self._conn, project_id, revisions=changes.revisions)
        charges.mark_rollups(self._conn, project_id, touched=changes.touched)
        gpu_calls.replace(
            self._conn, project_id, works={row.key: works[row.key] for row in open_rows if row.key in works},
            known=[key for key in booked if not _is_closed(key, closed_to)], again=bool(changes.touched),
        )  # fmt: skip
        mark_callers(self._conn, project_id, touched=changes.touched, nodes=chain.from_iterable(s.nodes for s in sets))
        return len(changes.touched)

    def _booked(self, project_id: int, sets: Sequence[TraceSet]) -> dict[Key, Booked]:
        """Charges of these sets whose span is still stored. One whose span has expired is never changed again."""
        nodes = [node for trace_set in sets for node in trace_set.nodes]
        booked = charges.load_booked(self._conn, project_id, nodes=nodes)
        if not booked:
            return booked
        stored = {(span.trace_id, span.span_id) for trace_set in sets for span in trace_set.spans}
        return {key: value for key, value in booked.items() if key[1:] in stored}

    def _oversize(self, project_id: int, nodes: Sequence[Node]) -> tuple[set[Node], int]:
        """Resolve oversize traces span by span. Returns those read only a moment ago, and the charges written."""
        if not nodes:
            return set(), 0
        trace_ids = [trace_id for _, trace_id in nodes]
        resting = set() if self._force else traces.resting(self._conn, project_id, trace_ids=trace_ids)
        written = sum(self._span_by_span(project_id, node) for node in nodes if node not in resting)
        return resting, written

    def _span_by_span(self, project_id: int, node: Node) -> int:
        """Charges from each span's own attributes alone, page by page, so that memory stays bounded."""
        traces.mark_twins_once(self._conn, project_id, node=node, shards=SHARDS)
        after, count, written = -(2**63), 0, 0
        while page := traces.load_spans_after(self._conn, project_id, node=node, after=after, limit=PAGE_SPANS):
            written += self._write_sets(project_id, [TraceSet([node], [span]) for span in page], {})
            after, count = page[-1].span_id, count + len(page)
        traces.report_odd(self._conn, project_id, oddity=Oddity(node, "oversize", str(count)))
        return written


def _calls(trace_set: TraceSet, rules: TokenRules, mappings: Sequence[Rule]) -> list[Call]:
    return [own(call, mappings) for call in resolve(trace_set.spans, rules=rules)]


def _rows(project_id: int, calls: Sequence[Call], book: RateBook, shares: Mapping[Key, Share]) -> list[charges.Row]:
    """The charges of calls: by their tokens, or with what they were attributed of GPU hours."""
    rows = []
    for call in calls:
        priced = book.price(call)
        share = shares.get(charges.key_of(call)) if shares else None
        rows.append(charges.encode(project_id, call, with_gpu(priced, *share) if share else priced))
    return rows


def _is_closed(key: Key, closed_to: date | None) -> bool:
    return closed_to is not None and key[0] <= closed_to


def _without_expired(rows: Sequence[charges.Row], horizon: date | None) -> Sequence[charges.Row]:
    """Without charges of days whose charges were dropped: one late call would replace the sums that were kept."""
    return rows if horizon is None else [row for row in rows if row.key[0] >= horizon]


# -- the price list, kept while it does not change -----------------------------------------------------------------

_books: dict[int, tuple[int, RateBook]] = {}


def rate_book(conn: psycopg.Connection, project_id: int) -> RateBook:
    version = rates_version(conn)
    cached = _books.get(project_id)
    if cached is None or cached[0] != version:
        cached = _books[project_id] = (version, load_rate_book(conn, project_id))
    return cached[1]
