"""Find anomalies, say their cause once, and keep both in step with the sums.

Every run judges the last days again from the sums as they are now: late data corrects anomalies, moves them, or makes
them disappear (*withdrawn*), and running twice changes nothing. Alerts are opened in the transaction that writes the
anomaly: at most so many a week, not for old news, and not for what looks like something people dismissed.
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

import psycopg
from django.conf import settings

from anomaly.budget import within_budget
from costapp.core.alerts import Fact, Finding, Level, Source
from costapp.core.money import format_usd
from costapp.models import Channel
from costapp.services import alerts
from costapp.services.anomalies.causes import DAYS_BACK, MOST_LEAVES, cause_of, words_of
from costapp.services.anomalies.pools import cause_of_pool, judge_pools
from costapp.services.anomalies.series import DIMENSIONS, Limits, Odd, judge_series
from costapp.services.anomalies.stories import SLACK, Excess, Story, in_telling_order, same_money
from costapp.storage import anomalies as store
from costapp.storage.anomalies import Anomaly, Found, Pulse
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.reports.anomaly_cells import LEAF_MEASURES, Leaf, first_cell, leaves
from costapp.storage.reports.anomaly_pools import POOL
from costapp.storage.reports.cells import Grain, Scope
from costapp.storage.reports.rule_readings import complete_until

Connection = psycopg.Connection[Any]

CELL = timedelta(minutes=5)
HOUR = timedelta(hours=1)
#: A cell is judged this long after it ended: exporters batch for seconds.
SETTLE = timedelta(seconds=60)
#: Data that waits longer than this to be summed no longer holds detection back.
MOST_LAG = timedelta(minutes=15)
#: Days judged again on every run, for late data; all of the history looked at when older data appears.
AGAIN = timedelta(days=3)
#: An anomaly is over when nothing was odd for so long. What happens within the next day continues it.
OVER_AFTER = timedelta(hours=3)
CONTINUES = timedelta(hours=24)
#: Only what was odd within this time is news.
NEWS = timedelta(hours=24)
WEEK = timedelta(days=7)
#: A dismissal is remembered this long, for anomalies of the same slice and kind that are not half as odd again.
REMEMBERED = timedelta(days=90)
_COST = LEAF_MEASURES.index("cost_nano")
_EXCESS_DIMENSIONS = tuple(dict.fromkeys((*DIMENSIONS, "feature", "model")))


class Tally(NamedTuple):
    projects: int = 0
    series: int = 0
    odd: int = 0
    told: int = 0

    def __add__(self, other: object) -> "Tally":
        assert isinstance(other, Tally)
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))


def detect_anomalies(conn: Connection, *, now: datetime | None = None) -> Tally:
    """All projects with new cells. A project that another worker has is left to it."""
    require_autocommit(conn)
    total = Tally()
    for project_id, slug, zone in store.projects_with_data(conn):
        try:
            with conn.transaction():
                if store.try_lock_project(conn, project_id):
                    total += _Run(conn, project_id, slug, zone, now).work()
        except RETRYABLE:
            continue  # the next bell finds the same cells
    return total


def limits() -> Limits:
    return Limits(
        series=settings.ANOMALY_SERIES,
        history=timedelta(days=settings.ANOMALY_HISTORY_DAYS),
        least_nano=settings.ANOMALY_LEAST_NANO,
        alerts_per_week=settings.ANOMALY_ALERTS_PER_WEEK,
    )


class _Run:
    """One project, one moment."""

    def __init__(self, conn: Connection, project_id: int, slug: str, zone: str, now: datetime | None) -> None:
        self.conn, self.project_id, self.slug, self.zone = conn, project_id, slug, zone
        clock, whole = complete_until(conn, project_id, with_histograms=False)
        self.now = now or clock
        edge = max(min(whole, self.now - SETTLE), self.now - MOST_LAG)
        self.until = edge - timedelta(seconds=edge.timestamp() % CELL.total_seconds())

    def work(self) -> Tally:
        began = time.perf_counter_ns()
        first, before = first_cell(self.conn, self.project_id), store.pulse(self.conn, self.project_id)
        if first is None or first >= self.until:
            return Tally()
        older = before is None or before.first_at is None or first < before.first_at
        if before is not None and before.judged_until >= self.until and not older:
            return Tally()
        since = self._since(before, older)
        judged = judge_series(self.conn, self.project_id, self.zone, first, self.until, since, limits())
        idle, pools = judge_pools(self.conn, self.project_id, self.zone, self.until, since, limits(), judged.series)
        stories = [*self._stories(judged.odd), *(Story(odd, ()) for odd in idle)]
        told = self._keep(stories, since)
        series = judged.series + pools
        took_us = (time.perf_counter_ns() - began) // 1000
        pulse = Pulse(self.until, first, self.now, took_us, series, judged.beyond, len(judged.odd) + len(idle))
        store.write_pulse(self.conn, self.project_id, pulse)
        return Tally(1, series, len(judged.odd) + len(idle), told)

    def _since(self, before: Pulse | None, older: bool) -> datetime:
        back = timedelta(days=settings.ANOMALY_LOOK_BACK_DAYS)
        return self.until - back if before is None or older else min(before.judged_until, self.until) - AGAIN

    # --- stories

    def _stories(self, odds: Sequence[Odd]) -> list[Story]:
        """Each anomaly joins the first story whose money it shows, else it is one."""
        stories: list[Story] = []
        excess: dict[int, Excess] = {}
        for odd in in_telling_order(odds):
            for place, story in enumerate(stories):
                if not story.lead.overlaps(odd, SLACK):
                    continue
                if place not in excess:
                    excess[place] = self._excess(story.lead)
                if same_money(excess[place], story.lead, odd):
                    stories[place] = story._replace(members=(*story.members, odd))
                    break
            else:
                stories.append(Story(odd, ()))
        return sorted(stories, key=lambda story: (story.lead.start_at, story.lead.dimension, story.lead.value))

    def _excess(self, odd: Odd) -> Excess:
        scope = Scope(self.project_id, self.zone, odd.start_at, min(odd.end_at, odd.start_at + NEWS), Grain.HOUR)
        found: list[Leaf] = leaves(self.conn, scope, _EXCESS_DIMENSIONS, days_back=DAYS_BACK, limit=MOST_LEAVES)
        return Excess(found, _EXCESS_DIMENSIONS, odd, _COST)

    # --- what is kept

    def _keep(self, stories: Sequence[Story], since: datetime) -> int:
        known = store.since(self.conn, self.project_id, since - CONTINUES)
        quiet = [(story.lead.start_at, story.lead.end_at) for story in stories if story.lead.dimension != POOL]
        matches = _matched(stories, known)
        found = [
            self._found(story, match, [time for time in quiet if time != (story.lead.start_at, story.lead.end_at)])
            for story, match in zip(stories, matches, strict=True)
        ]
        found = self._suppressed(found, matches)
        ids = store.write(self.conn, self.project_id, found, self.now)
        gone = [each for each in known if each.id not in ids and each.end_at > since and each.state != "withdrawn"]
        store.withdraw(self.conn, self.project_id, [each.id for each in gone], self.now)
        return self._tell([each._replace(id=i) for each, i in zip(found, ids, strict=True)], matches, gone)

    def _found(self, story: Story, match: Anomaly | None, quiet: Sequence[tuple[datetime, datetime]]) -> Found:
        odd, anomaly = story.lead, story.lead.anomaly
        if odd.dimension == POOL:
            cause = cause_of_pool(self.conn, self.project_id, self.zone, odd)
        else:
            cause = cause_of(self.conn, self.project_id, self.zone, odd, quiet)
        members = sorted([each.dimension, each.value] for each in story.members)
        return Found(
            id=match.id if match else 0,
            dimension=odd.dimension,
            value=odd.value,
            kind=str(anomaly.kind),
            state="over" if self.until >= odd.end_at + OVER_AFTER else "open",
            start_at=odd.start_at,
            odd_at=odd.odd_at,
            peak_at=odd.peak_at,
            end_at=odd.end_at,
            score_milli=int(anomaly.score * 1000),
            above_nano=odd.above_nano,
            above_band_nano=anomaly.above_band_nano,
            actual_nano=odd.actual_nano,
            new_normal=anomaly.new_normal,
            title=cause.title,
            detail={**cause.detail, "members": members},
            suppressed="",
        )

    def _suppressed(self, found: Sequence[Found], matches: Sequence[Anomaly | None]) -> list[Found]:
        """Why nobody is told of what is new: old news, like a dismissed one, or the week's alerts are used up."""
        learnt = [
            each
            for each in store.since(self.conn, self.project_id, self.now - REMEMBERED)
            if each.verdict == "dismissed"
        ]
        reasons = []
        for each, match in zip(found, matches, strict=True):
            if match is not None:
                reasons.append(match.suppressed)
            elif each.end_at < self.now - NEWS:
                reasons.append("old")
            else:
                reasons.append("dismissed" if any(_like(each, old) for old in learnt) else "")
        fresh = [i for i, match in enumerate(matches) if not reasons[i] and (match is None or match.told_at is None)]
        told = store.told_since(self.conn, self.project_id, self.now - WEEK)
        allowed = within_budget([found[i].score_milli for i in fresh], told, settings.ANOMALY_ALERTS_PER_WEEK)
        for place, i in enumerate(fresh):
            if place not in allowed:
                reasons[i] = "budget"
        return [each._replace(suppressed=reason) for each, reason in zip(found, reasons, strict=True)]

    # --- who is told

    def _tell(self, found: Sequence[Found], matches: Sequence[Anomaly | None], gone: Sequence[Anomaly]) -> int:
        """Alerts of what is new, changed, over or withdrawn, in this transaction. Returns how many were opened."""
        new = [
            each
            for each, match in zip(found, matches, strict=True)
            if not each.suppressed and each.state == "open" and (match is None or match.told_at is None)
        ]
        if new:
            channels = list(
                Channel.objects.filter(project_id=self.project_id, enabled=True).values_list("pk", flat=True)
            )
            findings = [self._finding(each) for each in new]
            alerts.open_alerts(self.conn, findings, {finding.key: channels for finding in findings}, self.now)
            store.mark_told(self.conn, self.project_id, [each.id for each in new], self.now)
        over = {
            alert_key(each.id): f"Over. {each.title}"
            for each, match in zip(found, matches, strict=True)
            if match is not None and match.told_at and match.state == "open" and each.state == "over"
        }
        over |= {alert_key(each.id): "Withdrawn: data that came later explains it." for each in gone if each.told_at}
        if over:
            alerts.resolve(self.conn, self.project_id, list(over), over, self.now)
        return len(new)

    def _finding(self, each: Found) -> Finding:
        facts = [
            Fact("Above expected", format_usd(each.above_nano)),
            Fact("Beyond the usual band", format_usd(each.above_band_nano)),
            Fact(
                "Idle money in that time" if each.dimension == POOL else "Cost in that time",
                format_usd(each.actual_nano),
            ),
        ]
        drivers = each.detail["drivers"]
        return Finding(
            project_id=self.project_id,
            source=Source.ANOMALY,
            source_id=each.id,
            key=alert_key(each.id),
            level=Level.INFO if each.new_normal else Level.WARNING,
            title=each.title,
            subject={each.dimension: each.detail.get("pool", each.value)} if each.dimension else {},
            facts=tuple(facts),
            driver=f"Driven by {words_of(drivers[0]['where'])}." if drivers else "",
            path=f"/p/{self.slug}/anomalies/?{urlencode({'id': each.id})}",
            group_key="anomaly",
            period_start=each.start_at,
            period_end=each.end_at,
            complete_until=self.until,
        )


def alert_key(anomaly_id: int) -> str:
    return f"anomaly/{anomaly_id}"


def _like(new: Found, old: Anomaly) -> bool:
    same = (new.dimension, new.value, new.kind) == (old.dimension, old.value, old.kind)
    return same and 2 * new.score_milli < 3 * old.score_milli


def _matched(stories: Sequence[Story], known: Sequence[Anomaly]) -> list[Anomaly | None]:
    """The stored anomaly that each story is: one that shares a series with it at about the same time."""
    taken: set[int] = set()
    matches: list[Anomaly | None] = []
    for story in stories:
        match = next(
            (
                each
                for each in known
                if each.id not in taken
                and _slices(each) & story.slices
                and each.start_at < story.lead.end_at + CONTINUES
                and story.lead.start_at < each.end_at + CONTINUES
            ),
            None,
        )
        taken |= {match.id} if match else set()
        matches.append(match)
    return matches


def _slices(known: Anomaly) -> set[tuple[str, str]]:
    members = known.detail.get("members", [])
    return {(known.dimension, known.value), *((dimension, value) for dimension, value in members)}
