"""When a rule would have told somebody: past cells through the same state machine, without writing anything.

Windows of an hour or longer are replayed hour by hour over 30 days, windows of days day by day over 90 days, shorter
ones in their own steps over 7 days, and what only single calls tell over 7 days. The cells are read once, by one
statement, and slid over here.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from operator import add, sub
from typing import Any, NamedTuple

import psycopg

from costapp.core.alert_bands import band_of
from costapp.core.alert_metrics import WINDOWS, Family, Window, grain_of
from costapp.core.alert_rules import Kind, Reading, Rule, Severity, State, badness, of_threshold, step
from costapp.core.alert_windows import STEPS, last_edge, next_edge, start_of
from costapp.models import AlertRule, Project
from costapp.services.rule_readings import compared_ends
from costapp.storage.reports.rule_readings import VALUES, Figures, Question, read
from costapp.storage.reports.state import first_day
from costapp.storage.reports.sums import Sums

Connection = psycopg.Connection[Any]

DAYS = {"5m": 7, "hour": 30, "day": 90}
STEP_WORDS = {"5m": "every 5 minutes", "hour": "hour by hour", "day": "day by day"}
MOST_SUBJECTS = 20
MOST_WITH_HISTOGRAMS = 8
BAND_REACH = timedelta(weeks=4, hours=2)


class Firing(NamedTuple):
    """One alert that there would have been."""

    subject: str
    severity: Severity  #: the worst it reached
    opened_at: datetime
    resolved_at: datetime | None


class Point(NamedTuple):
    end: datetime
    measure: int | None  #: on the scale of the thresholds as typed


class Preview(NamedTuple):
    firings: list[Firing]
    lines: dict[str, list[Point]]  #: by subject
    subjects: int  #: how many there are; `lines` may hold fewer
    days: int
    steps: str
    now: str  #: the subject to show: the one with most firings, else the worst at the end


def preview(conn: Connection, project: Project, rule: AlertRule, now: datetime) -> Preview:
    """``rule`` need not be saved, but valid."""
    grain, zone, days = _grain(rule), project.time_zone, _days(rule)
    ends = _ends(last_edge(now, grain, zone), days, grain, zone)
    question, width = _question(project, rule, grain)
    cells = _cells_before(ends[0], rule, grain, zone) + ends
    answer = read(conn, question, cells, limit=_most_subjects(rule))
    machine = _in_steps(rule, grain)
    compared = _compared(conn, question, rule, ends)
    subjects = sorted({name for found in answer.figures.values() for name in found}) or [""]
    firings: list[Firing] = []
    lines: dict[str, list[Point]] = {}
    for subject in subjects:
        line = [answer.figures.get(end, {}).get(subject) for end in cells]
        readings = _readings(rule, machine, cells, line, width, compared)
        lines[subject], fired = _replay(machine, subject, readings)
        firings += fired
    shown = _most_interesting(lines, firings, machine)
    firings.sort(key=lambda firing: firing.opened_at)
    return Preview(firings, lines, answer.subjects, days, STEP_WORDS[grain], shown)


def _grain(rule: AlertRule) -> str:
    """The step of the replay: cells of an hour serve every window of whole hours."""
    if rule.the_metric.family is Family.SILENCE:
        return "5m"
    window = rule.the_window
    return "hour" if window.grain == "5m" and window.length >= timedelta(hours=1) else window.grain


def _most_subjects(rule: AlertRule) -> int:
    return MOST_WITH_HISTOGRAMS if rule.the_metric.family is Family.LATENCY else MOST_SUBJECTS


def _days(rule: AlertRule) -> int:
    reads_calls = rule.the_metric.family is Family.CALLS or not all(_in_rollup(key) for key in (rule.by, *rule.filters))
    days = DAYS[_grain(rule)]
    return min(days, DAYS["5m"]) if reads_calls and rule.the_window.grain != "day" else days


def _question(project: Project, rule: AlertRule, grain: str) -> tuple[Question, int]:
    """What single cells to read, and how many make a window (0: as long as it was silent)."""
    one = {"5m": WINDOWS["5m"], "hour": Window("hour", "1 hour", timedelta(hours=1), "hour"), "day": WINDOWS["1d"]}
    family = rule.the_metric.family
    is_silence = family is Family.SILENCE
    if family is Family.ANOMALIES:  # one lasts for many cells: their sums would count it again in each
        return Question(project.pk, project.time_zone, family, rule.the_window, rule.by, rule.filter_pairs), 1
    width = 0 if is_silence else rule.the_window.length // one[grain].length
    if any(not _in_rollup(key) for key in (rule.by, *rule.filters)):
        one["hour"] = one["hour"]._replace(grain="5m")  # users and sessions are read from calls
    family = Family.SUMS if is_silence else family
    return Question(project.pk, project.time_zone, family, one[grain], rule.by, rule.filter_pairs), width


def _in_rollup(key: str) -> bool:
    return key not in ("user", "session")


def _ends(last: datetime, days: int, grain: str, zone: str) -> list[datetime]:
    first = last_edge(last - timedelta(days=days), grain, zone)
    return list(_edges(first, last, grain, zone))


def _edges(first: datetime, last: datetime, grain: str, zone: str) -> Iterator[datetime]:
    edge = first
    while edge <= last:
        yield edge
        edge = next_edge(edge, grain, zone)


def _cells_before(first: datetime, rule: AlertRule, grain: str, zone: str) -> list[datetime]:
    """Cells that the first windows, and what they are compared with, reach back to."""
    start = start_of(first, rule.the_window, zone)
    if rule.the_condition.compares_periods:
        start = start_of(start, rule.the_window, zone)
    if rule.the_condition.needs_band:
        start = start_of(first - BAND_REACH, rule.the_window, zone)
    if grain == "day":
        edges = list(_edges(last_edge(start, grain, zone), first, grain, zone))
    else:
        edges = list(_edges(last_edge(start, grain, zone) + STEPS[grain], first, grain, zone))
    return [edge for edge in edges if edge < first]


def _in_steps(rule: AlertRule, grain: str) -> Rule:
    """The rule at the pace of the replay: calm windows are fewer where the steps are longer."""
    machine = rule.to_rule()
    live = grain_of(rule.the_metric, rule.the_window)
    if live == grain or grain == "day":
        return machine
    steps = STEPS[grain] // STEPS["5m"] if live == "5m" else 1
    return machine._replace(calm_readings=max(1, -(-machine.calm_readings // steps)))


def _compared(
    conn: Connection, question: Question, rule: AlertRule, ends: Sequence[datetime]
) -> dict[datetime, list[datetime]]:
    """End of each window -> ends of those it is compared with, as in an evaluation."""
    asked = question._replace(window=rule.the_window)
    since = first_day(conn, question.project_id) if rule.the_condition.compares_periods else None
    return {end: compared_ends(asked, rule.the_condition, end, since) for end in ends}


def _readings(
    rule: AlertRule,
    machine: Rule,
    cells: Sequence[datetime],
    line: Sequence[Figures | None],
    width: int,
    compared: Mapping[datetime, list[datetime]],
) -> list[Reading]:
    """One reading per window, from the first call of the subject on."""
    first = next((place for place, found in enumerate(line) if found and found.requests), len(line))
    if width == 0:
        return [reading for reading in _silences(cells, line, first) if reading.end in compared]
    value = VALUES[rule.metric]
    known: dict[datetime, int | None] = {}
    readings = []
    for place, (end, found) in enumerate(zip(cells, _slide(line, width), strict=True)):
        if place < first and rule.by:
            continue
        known[end] = value(found)
        if end not in compared:
            continue
        reading = Reading(end, known[end], found.requests)
        past = [each for asked in compared[end] if (each := known.get(asked)) is not None]
        if machine.condition.compares_periods:
            reading = reading._replace(before=past[0] if past else None)
        elif machine.condition.needs_band:
            reading = reading._replace(band=band_of(past))
        readings.append(reading)
    return readings


def _silences(cells: Sequence[datetime], line: Sequence[Figures | None], first: int) -> Iterator[Reading]:
    quiet = 0
    for place in range(first, len(cells)):
        found = line[place]
        quiet = 0 if found and found.requests else quiet + 1
        yield Reading(cells[place], quiet * 300, 1)


def _slide(line: Sequence[Figures | None], width: int) -> Iterator[Figures]:
    """Figures of each window of ``width`` cells, by adding the newest cell and taking the oldest away.

    The slots of a yielded value are those of the moment: read them before the next one.
    """
    sample = next((found for found in line if found), Figures())
    unknown = [place for place, number in enumerate(sample.sums) if number is None]
    none = (0,) * len(_flat(sample))
    sums = list(
        accumulate(
            (_flat(found) if found else none for found in line), lambda a, b: tuple(map(add, a, b)), initial=none
        )
    )
    slots: Counter[int] = Counter()
    for place, newest in enumerate(line):
        numbers = map(sub, sums[place + 1], sums[max(0, place + 1 - width)])
        if sample.slots is not None:
            slots.update(newest.slots if newest and newest.slots else {})
            oldest = line[place - width] if place >= width else None
            slots.subtract(oldest.slots if oldest and oldest.slots else {})
        yield _unflat(sample, list(numbers), unknown, slots)


def _flat(found: Figures) -> tuple[int, ...]:
    beside = (found.unattributed, found.fallbacks, found.sessions, found.idle_us, found.observed_us, found.above_nano)
    return tuple(number or 0 for number in (found.requests, *beside, *found.sums))


def _unflat(sample: Figures, numbers: list[int], unknown: list[int], slots: Counter[int]) -> Figures:
    """What the sample does not know stays unknown."""
    requests, unattributed, fallbacks, sessions, idle_us, observed_us, above_nano = numbers[:7]
    sums = Sums._make(numbers[7:])
    if unknown:
        sums = Sums._make(None if place in unknown else number for place, number in enumerate(sums))
    return Figures(
        requests,
        sums,
        None if sample.unattributed is None else unattributed,
        None if sample.fallbacks is None else fallbacks,
        None if sample.sessions is None else sessions,
        slots if sample.slots is not None else None,
        idle_us=None if sample.idle_us is None else idle_us,
        observed_us=None if sample.observed_us is None else observed_us,
        above_nano=above_nano,
    )


def _replay(machine: Rule, subject: str, readings: Sequence[Reading]) -> tuple[list[Point], list[Firing]]:
    state, points, firings = State(), [], list[Firing]()
    for reading in readings:
        bad = badness(reading, machine)
        points.append(Point(reading.end, None if bad is None else of_threshold(bad, machine.condition)))
        state, transitions = step(state, reading, machine, reading.end)
        for transition in transitions:
            if transition.kind is Kind.OPENED:
                firings.append(Firing(subject, transition.severity, transition.at, None))
            elif transition.kind is Kind.ESCALATED:
                firings[-1] = firings[-1]._replace(severity=transition.severity)
            elif transition.kind is Kind.RESOLVED:
                firings[-1] = firings[-1]._replace(resolved_at=transition.at)
    return points, firings


def _most_interesting(lines: dict[str, list[Point]], firings: Sequence[Firing], machine: Rule) -> str:
    """The subject to draw: the one that fired most, else the one that came closest."""
    if firings:
        return Counter(firing.subject for firing in firings).most_common(1)[0][0]

    def closest(subject: str) -> int:
        known = [of_threshold(p.measure, machine.condition) for p in lines[subject] if p.measure is not None]
        return max(known, default=-(2**62))

    return max(lines, key=lambda name: (closest(name), name), default="")
