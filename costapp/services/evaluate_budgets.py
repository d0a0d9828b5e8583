"""Evaluate budgets: read what pages show, decide what crossed, and write readings, alerts and messages as one.

One budget is one transaction under its own lock: two workers never double, and a crash leaves all of it or nothing.
Everything is decided from stored states, never from what happened to be in memory; so repeating, skipping or
reordering evaluations, and clocks that step back, are harmless.
"""

import logging
import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from django.conf import settings

from costapp.core.alerts import Finding, Source, bounded_key
from costapp.core.budgets import Basis, CarryOver, State, Threshold, Verdict, carried_nano, judge
from costapp.core.forecast import Forecast, runs_out_at
from costapp.core.periods import Period, PeriodKind, period_of, period_of_day, previous
from costapp.services import alerts, budget_words
from costapp.services.budget_figures import driver, forecasts, scope_of, spent
from costapp.storage import budgets as store
from costapp.storage.budgets import BudgetRow, PeriodRow, Reading
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.reports.cells import Grain
from costapp.storage.reports.state import state
from costapp.storage.reports.sums import Sums

log = logging.getLogger(__name__)

FORECAST_EVERY = timedelta(minutes=10)
PAST_EVERY = timedelta(minutes=10)
LATE_DAYS = 7  #: periods that ended so long ago are still looked at, and always the last one
CLOSES_AFTER = timedelta(hours=1)  #: a period whose data is not known to be complete is closed all the same
LATE_STAYS = timedelta(hours=24)  #: an alert about late data closes by itself
MOST_DRIVERS = 20  #: findings of one evaluation that get a driver
LIGHT_S = 0.2  #: a budget that took longer to look at, such as one for each of thousands of users, rests after it
REST = 8  #: times as long as it took: at most a ninth of a worker
ROLLING_KEY = date(1970, 1, 1)  #: a rolling period moves on each day: it is one period without end


_rests_until: dict[int, float] = {}  # per process, of its own clock


class Outcome(NamedTuple):
    """What one evaluation led to."""

    opened: int = 0
    resolved: int = 0
    subjects: int = 0
    beyond: int = 0  #: values with spend that were not looked at: more than COSTAPP_BUDGET_SUBJECTS


class _Turn(NamedTuple):
    """One period of one budget, being looked at."""

    conn: psycopg.Connection[Any]
    row: BudgetRow
    period: Period
    key: date
    known: PeriodRow | None
    now: datetime
    complete_until: datetime

    @property
    def is_closed(self) -> bool:
        return bool(self.known and self.known.closed_at)

    @property
    def has_ended(self) -> bool:
        return self.period.end_at <= self.now


def evaluate_due(conn: psycopg.Connection[Any], *, budget_s: float = 20.0) -> Outcome:
    """Evaluate what changed or was not looked at for a while. After ``budget_s`` the rest is left to the next call."""
    require_autocommit(conn)
    deadline, total = time.monotonic() + budget_s, Outcome()
    for project_id, budget_id in store.due(conn, quiet_s=settings.BUDGET_EVERY_S):
        began = time.monotonic()
        if began < _rests_until.get(budget_id, 0.0):
            continue
        total = _add(total, evaluate(conn, project_id, budget_id))
        ended = time.monotonic()
        if ended - began > LIGHT_S:
            _rests_until[budget_id] = ended + REST * (ended - began)
        if ended > deadline:
            break
    for project_id, budget_id in store.removed_with_alerts(conn):
        with conn.transaction():
            if store.try_lock(conn, budget_id):
                total = _add(total, _close_orphans(conn, project_id, budget_id, keep=set(), now=store.now(conn)))
    return total


def evaluate(conn: psycopg.Connection[Any], project_id: int, budget_id: int, *, now: datetime | None = None) -> Outcome:
    """One budget, in one transaction. Nothing happens when another worker has it."""
    try:
        with conn.transaction():
            if not store.try_lock(conn, budget_id):
                return Outcome()
            row = store.budget(conn, budget_id)
            return _evaluate(conn, row, now or store.now(conn)) if row else Outcome()
    except RETRYABLE:
        return Outcome()


def _evaluate(conn: psycopg.Connection[Any], row: BudgetRow, now: datetime) -> Outcome:
    known = store.periods(conn, row.project_id, row.id)
    complete_until = state(conn, row.project_id, month_start=now).complete_until
    total, open_keys = Outcome(), set[str]()
    for key, period in _periods(row, known, now):
        turn = _Turn(conn, row, period, key, known.get(key), now, complete_until)
        outcome, keys = _look(turn)
        total = _add(total, outcome)
        open_keys |= keys
    return _add(total, _close_orphans(conn, row.project_id, row.id, keep=open_keys, now=now))


def _periods(row: BudgetRow, known: Mapping[date, PeriodRow], now: datetime) -> list[tuple[date, Period]]:
    """The current period, and past ones that may still change. A budget has none before it starts or after it ends."""
    kind = PeriodKind(row.period)
    current = period_of(kind, now, row.time_zone, rolling_days=row.rolling_days or 0)
    if kind is PeriodKind.ROLLING:
        found = [(ROLLING_KEY, current.clipped(row.starts_on, row.ends_on))]
    else:
        past = [
            key for key, seen in known.items()
            if key < current.first_day and seen.revision == row.revision
            and (seen.end_at > now - timedelta(days=LATE_DAYS) or key == previous(current).first_day)
        ]  # fmt: skip
        keys = [*sorted(past), current.first_day]
        found = [(key, period_of_day(kind, key, row.time_zone).clipped(row.starts_on, row.ends_on)) for key in keys]
    return [(key, period) for key, period in found if period.first_day < period.end_day and period.start_at <= now]


def _look(turn: _Turn) -> tuple[Outcome, set[str]]:
    """One period: read, judge, write. Returns the keys of the alerts that are open after it, too."""
    conn, row = turn.conn, turn.row
    before = store.readings(conn, row.project_id, row.id, turn.key)
    if turn.known and turn.known.revision != row.revision:
        store.forget_period(conn, row.project_id, row.id, turn.key)
        turn, before = turn._replace(known=None), {}
    if turn.is_closed and turn.known and timedelta() <= turn.now - turn.known.evaluated_at < PAST_EVERY:
        return Outcome(), _open_keys(before.values())
    found = spent(conn, row, _scope(turn), most=settings.BUDGET_SUBJECTS)
    gone = sorted(set(before) & set(row.own_values)) if row.is_template else []
    store.forget_subjects(conn, row.project_id, row.id, turn.key, gone)
    before = {subject: reading for subject, reading in before.items() if subject not in gone}
    by_subject = {**dict.fromkeys(before, Sums()), **found.by_subject}
    readings = _readings(turn, by_subject, before)
    forecast_at = turn.known.forecast_at if turn.known else None
    if not turn.has_ended and _is_old(forecast_at, turn.now):
        readings, forecast_at = _with_forecasts(turn, readings), turn.now
    closes = turn.has_ended and not turn.is_closed and _is_complete(turn)
    verdicts = [_judge(turn, reading) for reading in readings]
    # what crosses in the last look is told first, and ends with the next look
    closes = closes and not any(verdict.fires for verdict in verdicts)
    outcome, readings = _settle(turn, readings, verdicts, closes=closes)
    store.save_readings(conn, [reading for reading in readings if _differs(reading, before.get(reading.subject))])
    closed_at = turn.now if closes else turn.known.closed_at if turn.known else None
    store.save_period(
        conn,
        PeriodRow(
            row.project_id, row.id, turn.key, row.revision, turn.period.start_at, turn.period.end_at, turn.now,
            forecast_at, closed_at, found.distinct,
        ),
    )  # fmt: skip
    beyond = max(0, found.distinct - len(found.by_subject))
    if beyond:
        log.warning("Budget %s: %s values are beyond COSTAPP_BUDGET_SUBJECTS and not looked at.", row.id, beyond)
    return outcome._replace(subjects=len(readings), beyond=beyond), _open_keys(readings)


def _scope(turn: _Turn) -> Any:
    """Whole days, as pages read them. A period of before the zone changed keeps its bounds, read by the hour."""
    if turn.has_ended and turn.known and turn.known.start_at != turn.period.start_at:
        return scope_of(turn.row, turn.known.start_at, turn.known.end_at, grain=Grain.HOUR)
    return scope_of(turn.row, turn.period.start_at, turn.period.end_at)


def _is_old(forecast_at: datetime | None, now: datetime) -> bool:
    return forecast_at is None or not timedelta() <= now - forecast_at < FORECAST_EVERY


def _is_complete(turn: _Turn) -> bool:
    """All that was acknowledged before its end is in the sums, or it took too long to wait for."""
    return turn.complete_until >= turn.period.end_at or turn.now >= turn.period.end_at + CLOSES_AFTER


def _open_keys(readings: Any) -> set[str]:
    return {
        entry["key"] for reading in readings for entry in reading.states.values() if entry["state"] == State.OPEN
    }  # fmt: skip


def _differs(reading: Reading, before: Reading | None) -> bool:
    return before is None or reading != before._replace(evaluated_at=reading.evaluated_at)


# --- reading


def _readings(turn: _Turn, by_subject: Mapping[str, Sums], before: Mapping[str, Reading]) -> list[Reading]:
    """The new figures, with the forecast and the states of before."""
    row, carried = turn.row, _carried(turn, by_subject)
    found = []
    for subject, sums in by_subject.items():
        old = before.get(subject)
        keeps = old is not None and turn.has_ended  # history keeps its limit
        found.append(
            Reading(
                row.project_id, row.id, turn.key, subject, turn.now,
                amount_nano=old.amount_nano if old and keeps else row.amount_nano,
                carried_nano=old.carried_nano if old and keeps else carried.get(subject, 0),
                spent_nano=sums.cost_nano or 0, requests=sums.requests, unpriced=sums.unpriced,
                forecast_nano=old.forecast_nano if old else None, low_nano=old.low_nano if old else None,
                high_nano=old.high_nano if old else None, runs_out_at=old.runs_out_at if old else None,
                forecast_why=old.forecast_why if old else "", states=old.states if old else {},
            )
        )  # fmt: skip
    return [_not_below_spent(reading) for reading in found]


def _not_below_spent(reading: Reading) -> Reading:
    """A forecast of some minutes ago that spend has passed since."""
    if reading.forecast_nano is None or reading.forecast_nano >= reading.spent_nano:
        return reading
    least = reading.spent_nano
    return reading._replace(
        forecast_nano=least, low_nano=max(reading.low_nano or 0, least), high_nano=max(reading.high_nano or 0, least)
    )


def _carried(turn: _Turn, by_subject: Mapping[str, Sums]) -> dict[str, int]:
    """What the period before left, if the budget was there: a subject without calls then has spent nothing of it."""
    row, mode = turn.row, CarryOver(turn.row.carry_over)
    if mode is CarryOver.NONE or PeriodKind(row.period) is PeriodKind.ROLLING:
        return {}
    key = previous(period_of_day(PeriodKind(row.period), turn.key, row.time_zone)).first_day
    past = store.periods(turn.conn, row.project_id, row.id).get(key)
    if past is None or past.revision != row.revision:
        return {}
    earlier = store.readings(turn.conn, row.project_id, row.id, key)
    found = {}
    for subject in by_subject:
        reading = earlier.get(subject)
        found[subject] = carried_nano(
            mode, amount_nano=row.amount_nano,
            previous_limit_nano=reading.limit_nano if reading else row.amount_nano,
            previous_spent_nano=reading.spent_nano if reading else 0,
        )  # fmt: skip
    return found


def _with_forecasts(turn: _Turn, readings: list[Reading]) -> list[Reading]:
    """New forecasts, of a template for those nearest to their limit."""
    nearest = sorted(readings, key=lambda reading: -reading.spent_nano)[: settings.BUDGET_FORECASTS]
    told = forecasts(
        turn.conn, turn.row, turn.period, turn.now, {reading.subject: reading.spent_nano for reading in nearest}
    )
    return [_forecast(reading, told.get(reading.subject)) for reading in readings]


def _forecast(reading: Reading, told: Forecast | None) -> Reading:
    if told is None:
        why = f"Forecasts are made for the {settings.BUDGET_FORECASTS:,} dearest."
        return reading._replace(forecast_nano=None, low_nano=None, high_nano=None, runs_out_at=None, forecast_why=why)
    return reading._replace(
        forecast_nano=told.cost_nano, low_nano=told.low_nano, high_nano=told.high_nano, forecast_why=told.why,
        runs_out_at=runs_out_at(reading.limit_nano, reading.spent_nano, told.expected),
    )  # fmt: skip


# --- judging


def _settle(
    turn: _Turn, readings: list[Reading], verdicts: list[Verdict], *, closes: bool
) -> tuple[Outcome, list[Reading]]:
    """Open and resolve alerts, set-based; returns the readings with their new states."""
    fired: list[tuple[Reading, Threshold, str]] = []
    told_over: dict[str, str] = {}
    quiet: list[str] = []
    settled = []
    for reading, verdict in zip(readings, verdicts, strict=True):
        states = _states(turn, reading, verdict)
        for threshold in verdict.fires:
            fired.append((reading, threshold, states[threshold.key]["key"]))
        for threshold in verdict.recovers:
            told_over[states[threshold.key]["key"]] = budget_words.recovered(turn.row, reading, turn.period, threshold)
        quiet += [states[threshold.key]["key"] for threshold in verdict.closes]
        if closes:
            _end(turn, reading, states, told_over, quiet)
        quiet += _stale(turn, states)
        settled.append(reading._replace(states=states))
    covered = {
        entry["key"] for reading in settled for entry in reading.states.values() if entry["state"] == State.COVERED
    }  # fmt: skip
    _open(turn, fired, covered)
    silent = [*quiet, *(key for _, _, key in fired if key in covered)]
    alerts.resolve(turn.conn, turn.row.project_id, list(told_over), told_over, turn.now)
    alerts.resolve(turn.conn, turn.row.project_id, silent, {}, turn.now, tell=False)
    return Outcome(opened=len(fired), resolved=len(told_over) + len(quiet)), settled


def _judge(turn: _Turn, reading: Reading) -> Verdict:
    thresholds = [Threshold(Basis(basis), percent) for basis, percent in turn.row.thresholds]
    before = {key: State(entry["state"]) for key, entry in reading.states.items()}
    forecast_nano = None if turn.has_ended else reading.forecast_nano
    return judge(
        thresholds, limit_nano=reading.limit_nano, spent_nano=reading.spent_nano, forecast_nano=forecast_nano,
        before=before,
    )  # fmt: skip


def _states(turn: _Turn, reading: Reading, verdict: Verdict) -> dict[str, Any]:
    """Per threshold its state, the key of its alert, and how often it fired."""
    found = {}
    news = {threshold.key for threshold in verdict.fires}
    for key, now_is in verdict.states.items():
        old = reading.states.get(key, {"times": 0})
        entry = {**old, "state": str(now_is)}
        if key in news:
            entry |= {"times": old["times"] + 1, "late": turn.now.isoformat() if turn.is_closed else None}
            entry["key"] = _alert_key(turn, reading.subject, key, entry["times"])
        found[key] = entry
    return found


def _alert_key(turn: _Turn, subject: str, threshold: str, times: int) -> str:
    """The same crossing has the same key for ever. What is added tells another amount, or a return after a recovery."""
    row = turn.row
    more = f"/{times}" if times > 1 else ""
    return bounded_key(f"budget/{row.id}/{subject}/{turn.key}/{threshold}/r{row.revision}{more}")


def _end(turn: _Turn, reading: Reading, states: dict[str, Any], told_over: dict[str, str], quiet: list[str]) -> None:
    """The period is over: who was told that the money was gone is told that it is over; the rest ends silently."""
    for key, entry in states.items():
        if entry["state"] == State.OPEN:
            gone = key.startswith(Basis.ACTUAL) and int(key.rpartition("-")[2]) >= 100
            if gone:
                told_over[entry["key"]] = budget_words.ended(turn.row, reading, turn.period)
            else:
                quiet.append(entry["key"])
            entry["state"] = str(State.COVERED)


def _stale(turn: _Turn, states: dict[str, Any]) -> list[str]:
    """Alerts about late data that have been shown long enough."""
    found = []
    for entry in states.values():
        late = entry.get("late")
        if entry["state"] == State.OPEN and late and turn.now - datetime.fromisoformat(late) >= LATE_STAYS:
            entry["state"] = str(State.COVERED)
            found.append(entry["key"])
    return found


def _open(turn: _Turn, fired: list[tuple[Reading, Threshold, str]], covered: set[str]) -> None:
    """Alerts for all that fired; messages only for what no higher threshold covers."""
    findings, channels = [], {}
    drivers: dict[str, str] = {}
    for reading, threshold, key in sorted(fired, key=lambda each: -each[0].spent_nano):
        if reading.subject not in drivers:
            wanted = len(drivers) < MOST_DRIVERS
            drivers[reading.subject] = _driver(turn, reading.subject) if wanted else ""
        findings.append(_finding(turn, reading, threshold, key, drivers[reading.subject]))
        channels[key] = [] if key in covered else turn.row.channel_ids
    alerts.open_alerts(turn.conn, findings, channels, turn.now)


def _driver(turn: _Turn, subject: str) -> str:
    return driver(turn.conn, turn.row, turn.period, turn.now, subject)


def _finding(turn: _Turn, reading: Reading, threshold: Threshold, key: str, why: str) -> Finding:
    row, period = turn.row, turn.period
    return Finding(
        project_id=row.project_id, source=Source.BUDGET, source_id=row.id, key=key, level=threshold.level,
        title=budget_words.opened(row, reading, period, threshold, late=turn.is_closed),
        subject=budget_words.subject_of(row, reading.subject),
        facts=budget_words.facts(row, reading, period, turn.complete_until), driver=why,
        path=budget_words.path(row, period, reading.subject), group_key=f"budget/{row.id}/{turn.key}",
        period_start=period.start_at, period_end=period.end_at, complete_until=turn.complete_until,
    )  # fmt: skip


def _close_orphans(
    conn: psycopg.Connection[Any], project_id: int, budget_id: int, *, keep: set[str], now: datetime
) -> Outcome:
    """Open alerts that no reading stands for: the budget changed, is gone, or covers something else now."""
    found = [
        alert.key
        for alert in alerts.open_of(conn, Source.BUDGET, [project_id])
        if alert.source_id == budget_id and alert.key not in keep
    ]
    alerts.resolve(conn, project_id, found, {}, now, tell=False)
    return Outcome(resolved=len(found))


def _add(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(*(a + b for a, b in zip(one, other, strict=True)))
