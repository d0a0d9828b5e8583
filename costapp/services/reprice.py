"""Prices booked charges again after prices changed: shows the difference, then applies it.

Works from the quantities stored in each charge, so it reaches as far back as charges do. One
transaction per (day, shard) under that shard's lock: attribution of the same traces waits, everything
else goes on. A run that was interrupted goes on where it stopped; a charge that already has the right
price is not touched, so repeating a run is harmless.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from costapp.core.pricing import RateBook, with_gpu
from costapp.core.values import Call, ChargeFlag, CostStatus, Priced
from costapp.models import Project, RepriceRun
from costapp.storage import charges, outbox, reprice_runs
from costapp.storage.booked import BookedCharge, charge_span, days_with_charges, load_day
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.rates import load_rate_book, rates_version

REASON = "re-priced"
ATTEMPTS = 5
#: A dry run with a time limit looks at the clock after so many charges.
CLOCK_CHARGES = 500


@dataclass
class Difference:
    """What re-pricing changes for one feature on one day of the project's time zone."""

    day: date
    feature: str  #: "" = unattributed
    requests: int = 0  #: looked at
    changed: int = 0  #: anything about the price differs, be it only which rate it came from
    old_nano: int = 0  #: of the priced ones
    new_nano: int = 0
    newly_priced: int = 0
    newly_unpriced: int = 0

    @property
    def difference_nano(self) -> int:
        return self.new_nano - self.old_nano


@dataclass
class Repriced:
    """What a run found (dry) or did, and the rows behind it: only days and features that change."""

    project: str
    dry_run: bool
    first: date | None = None
    last: date | None = None
    resumed_at: date | None = None  #: an earlier run had come to here
    cut_at: date | None = None  #: a dry run's time was over: this day and those after it are not in it
    prices_moved: bool = False  #: prices changed during the run: some charges have the earlier ones
    differences: list[Difference] = field(default_factory=list)
    requests: int = 0
    changed: int = 0
    old_nano: int = 0
    new_nano: int = 0
    newly_priced: int = 0
    newly_unpriced: int = 0

    @property
    def difference_nano(self) -> int:
        return self.new_nano - self.old_nano

    def add(self, found: Iterable[Difference]) -> None:
        for row in found:
            for name in reprice_runs.COUNTS:
                setattr(self, name, getattr(self, name) + getattr(row, name))
            if row.changed:
                self.differences.append(row)


def reprice(
    conn: psycopg.Connection[Any],
    project: Project,
    *,
    first: date | None = None,
    last: date | None = None,
    dry_run: bool = False,
    budget_s: float | None = None,
    progress: Callable[[date], None] = lambda day: None,
) -> Repriced:
    """Price all charges of the (UTC) days ``first`` to ``last`` by today's rates; all days by default.

    A dry run stops after ``budget_s`` and says at which day; what is applied always goes to the end.
    """
    require_autocommit(conn)
    known = charge_span(conn, project.pk)
    if known is None:
        return Repriced(project.slug, dry_run)
    first, last = max(first or known[0], known[0]), min(last or known[1], known[1])
    result = Repriced(project.slug, dry_run, first, last)
    version = rates_version(conn)  # before the book: then the book is of this version or newer
    book = load_rate_book(conn, project.pk)
    if dry_run:
        _compare(Repricer(conn, project, book), result, budget_s, progress)
        return result
    run = _run_for(project, first, last, version)
    result.resumed_at = run.next_day if run.next_day > first else None
    repricer = Repricer(conn, project, book, run.pk)
    for day in days_with_charges(conn, project.pk, first=run.next_day, last=last):
        result.add(repricer.apply(day, from_shard=run.next_shard if day == run.next_day else 0))
        progress(day)
    result.prices_moved = rates_version(conn) != version
    reprice_runs.finish(conn, run.pk, prices_moved=result.prices_moved)
    return result


def _compare(repricer: "Repricer", result: Repriced, budget_s: float | None, progress: Callable[[date], None]) -> None:
    until = None if budget_s is None else time.monotonic() + budget_s
    assert result.first
    assert result.last
    for day in repricer.days(result.first, result.last):
        found = repricer.compare(day, until=until)
        if found is None:
            result.cut_at = day
            return
        result.add(found)
        progress(day)


def _run_for(project: Project, first: date, last: date, version: int) -> RepriceRun:
    """The command's unfinished run over the same days with the same prices, else a new one."""
    scope = {"project": project, "first_day": first, "last_day": last, "rates_version": version, "requested_by": ""}
    unfinished = RepriceRun.objects.filter(**scope, finished_at=None).order_by("-id").first()
    return unfinished or RepriceRun.objects.create(**scope, next_day=first)


class Repricer:
    """One project's charges and the rate book they are compared with. ``run_id``: the run that keeps the place."""

    def __init__(
        self, conn: psycopg.Connection[Any], project: Project, book: RateBook, run_id: int | None = None
    ) -> None:
        self._conn = conn
        self._project = project
        self._book = book
        self._run_id = run_id
        self._zone = ZoneInfo(project.time_zone)

    def days(self, first: date, last: date) -> list[date]:
        return days_with_charges(self._conn, self._project.pk, first=first, last=last)

    def compare(self, day: date, *, until: float | None = None) -> list[Difference] | None:
        """What would change on a day; writes nothing and locks nothing. None: not done ``until`` (monotonic)."""
        differences = _Differences(self._zone)
        with self._conn.transaction():
            stored = load_day(self._conn, self._project.pk, day=day)
            for number, (charge, call, new) in enumerate(self._repriced(stored)):
                if until is not None and number % CLOCK_CHARGES == 0 and time.monotonic() >= until:
                    return None
                differences.add(charge, new, changed=_differs(charge, call, new))
        return differences.rows()

    def apply(self, day: date, *, from_shard: int = 0) -> list[Difference]:
        """Write what changes on a day, shard by shard."""
        differences = _Differences(self._zone)
        for shard in range(from_shard, outbox.SHARDS):
            differences.merge(self.apply_shard(day, shard))
        return differences.rows()

    def apply_shard(self, day: date, shard: int) -> "_Differences":
        """One transaction, the run's place included; deadlocks and the like are retried."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._conn.transaction():
                    outbox.lock_shard(self._conn, shard)
                    differences = self._write(day, shard)
                    if self._run_id is not None:
                        counts = differences.counts()
                        reprice_runs.advance(self._conn, self._run_id, day=day, shard=shard, counts=counts)
                    return differences
            except RETRYABLE:
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _write(self, day: date, shard: int) -> "_Differences":
        differences = _Differences(self._zone)
        rows: list[charges.Row] = []
        booked: dict[charges.Key, charges.Booked] = {}
        stored = load_day(self._conn, self._project.pk, day=day, shard=shard, shards=outbox.SHARDS)
        for charge, call, new in self._repriced(stored):
            changed = _differs(charge, call, new)
            differences.add(charge, new, changed=changed)
            if changed:
                rows.append(charges.encode(self._project.pk, call, new))
                booked[charge.key] = charge.booked
        self._book_again(rows, booked)
        return differences

    def _book_again(self, rows: Sequence[charges.Row], booked: dict[charges.Key, charges.Booked]) -> None:
        if not rows:
            return
        reasons = {trace_id: REASON for _, trace_id, _ in booked}
        changes = charges.write(self._conn, self._project.pk, rows=rows, booked=booked, gone=(), reasons=reasons)
        charges.record(self._conn, self._project.pk, revisions=changes.revisions)
        charges.mark_rollups(self._conn, self._project.pk, touched=changes.touched)

    def _repriced(self, stored: Iterable[BookedCharge]) -> Iterator[tuple[BookedCharge, Call, Priced]]:
        for charge in stored:
            call = charge.call._replace(flags=self._own_flags(charge.call))
            yield charge, call, self._price(call, charge.priced)

    def _price(self, call: Call, old: Priced) -> Priced:
        """Its share of GPU hours is no price of ours to change: what is booked stays."""
        if old.gpu_nano is None:
            return self._book.price(call)
        return with_gpu(old, old.gpu_nano, is_estimate=old.status == CostStatus.ESTIMATED)

    def _own_flags(self, call: Call) -> int:
        """The flags of a charge without those that pricing added."""
        flags = call.flags & ~ChargeFlag.VENDOR_PRICE
        if not self._book.names.provider_id(call.provider):
            flags &= ~ChargeFlag.PROVIDER_GUESSED
        return int(flags)


def _differs(charge: BookedCharge, call: Call, new: Priced) -> bool:
    return charge.priced != new._replace(flags=0) or charge.call.flags != call.flags | new.flags


class _Differences:
    """Sums by day of the project's time zone and by feature."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._rows: dict[tuple[date, str], Difference] = {}

    def add(self, charge: BookedCharge, new: Priced, *, changed: bool) -> None:
        day = datetime.fromtimestamp(charge.call.start_ns // 10**9, UTC).astimezone(self._zone).date()
        row = self._row(day, charge.call.feature)
        old = charge.priced
        row.requests += 1
        row.changed += changed
        row.old_nano += old.cost_nano or 0
        row.new_nano += new.cost_nano or 0
        row.newly_priced += old.status == CostStatus.UNPRICED and new.status != CostStatus.UNPRICED
        row.newly_unpriced += old.status != CostStatus.UNPRICED and new.status == CostStatus.UNPRICED

    def merge(self, others: "_Differences") -> None:
        for key, other in others._rows.items():
            row = self._row(*key)
            for name in reprice_runs.COUNTS:
                setattr(row, name, getattr(row, name) + getattr(other, name))

    def counts(self) -> dict[str, int]:
        return {name: sum(getattr(row, name) for row in self._rows.values()) for name in reprice_runs.COUNTS}

    def rows(self) -> list[Difference]:
        return [self._rows[key] for key in sorted(self._rows)]

    def _row(self, day: date, feature: str) -> Difference:
        row = self._rows.get((day, feature))
        if row is None:
            row = self._rows[day, feature] = Difference(day, feature)
        return row
