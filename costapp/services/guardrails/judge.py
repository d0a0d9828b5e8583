"""Who crossed a guardrail: claim who has just called, add up their calls, open, extend and end incidents.

One transaction per project: the marks that were claimed, the incidents, the alerts and their messages commit together
or not at all, so a worker that dies loses and repeats nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import psycopg

from costapp.core.alerts import Change, Fact, Finding, Level, Source
from costapp.core.guardrails import Action, Incident, Per, alert_key, follow, minutes_text
from costapp.core.money import format_usd
from costapp.services import alerts
from costapp.storage import guardrails as store
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.guardrails import Ended, Rule

#: Marks per transaction; more wait for the next bell.
MARKS = 20_000
#: A closed incident is remembered so long, so that what comes late does not open it again.
REMEMBER = timedelta(days=1)
_CELL_S = 300


def judge(conn: psycopg.Connection, *, now: datetime) -> int:
    """Judge every project that has something to judge. Returns how many incidents were opened."""
    require_autocommit(conn)
    opened = 0
    for project_id in store.waiting_projects(conn, now):
        try:
            with conn.transaction():
                if store.try_lock_project(conn, project_id):
                    opened += _project(conn, project_id, now)
        except RETRYABLE:
            continue  # the next bell finds the same marks
    return opened


def _project(conn: psycopg.Connection, project_id: int, now: datetime) -> int:
    rules = store.rules(conn, project_id)
    marked = store.claim(conn, project_id, limit=MARKS)
    opened = 0
    for rule in rules:
        if subjects := marked.get(rule.guardrail.per):
            opened += _judge_rule(conn, rule, subjects, now)
    watched_ids = [rule.guardrail.id for rule in rules]
    ended = store.close_ended(conn, project_id, watched_ids=watched_ids, now=now)
    if ended:
        titles = {each.alert_key: _over(each, rules) for each in ended}
        alerts.resolve(conn, project_id, list(titles), titles, now)
        store.forget_closed(conn, project_id, before=now - REMEMBER)
    return opened


def _judge_rule(conn: psycopg.Connection, rule: Rule, subjects: Sequence[str], now: datetime) -> int:
    """Incidents that begin or go on with these subjects' calls."""
    guardrail = rule.guardrail
    crossings = store.crossings(conn, guardrail, subjects=subjects, now=now)
    if not crossings:
        return 0
    known = store.incidents(conn, guardrail, subjects=[crossing.subject for crossing in crossings])
    changes = [follow(guardrail, known.get(crossing.subject), crossing, now) for crossing in crossings]
    found = [change for change in changes if change is not None]
    store.save(conn, guardrail, incidents={alert_key(guardrail, each.incident): each.incident for each in found})
    fresh = [change.incident for change in found if change.is_new]
    findings = [_finding(conn, rule, incident) for incident in fresh]
    alerts.open_alerts(conn, findings, {finding.key: rule.channels for finding in findings}, now)
    alerts.change_levels(conn, [_grown(conn, rule, change.incident) for change in found if not change.is_new], now)
    return len(fresh)


def _finding(conn: psycopg.Connection, rule: Rule, incident: Incident) -> Finding:
    guardrail = rule.guardrail
    start, end = _cells(incident.opened_at - guardrail.window, incident.crossed_to)
    driver = store.driver(conn, guardrail, incident.subject, start, end)
    subject = {guardrail.per.value: incident.subject}
    subject |= {"feature": guardrail.feature} if guardrail.feature else {}
    return Finding(
        project_id=guardrail.project_id,
        source=Source.GUARDRAIL,
        source_id=guardrail.id,
        key=alert_key(guardrail, incident),
        level=Level(rule.level),
        title=guardrail.told(incident.subject, incident.value),
        subject=subject,
        facts=(*_facts(rule, incident), *_page_facts(rule, driver, start, end)),
        driver=_driver_text(driver),
        path=_path(rule, incident, start, end),
        group_key=f"guardrail/{guardrail.id}",
        period_start=start,
        period_end=end,
        complete_until=incident.crossed_to,
    )


def _grown(conn: psycopg.Connection, rule: Rule, incident: Incident) -> Change:
    """The same alert with its figures of now; nothing is sent for it."""
    guardrail = rule.guardrail
    start, end = _cells(incident.opened_at - guardrail.window, incident.crossed_to)
    driver = store.driver(conn, guardrail, incident.subject, start, end)
    facts = (*_facts(rule, incident), *_page_facts(rule, driver, start, end))
    title = guardrail.told(incident.subject, incident.value)
    return Change(guardrail.project_id, alert_key(guardrail, incident), Level(rule.level), title, facts)


def _page_facts(rule: Rule, driver: store.Driver | None, start: datetime, end: datetime) -> Sequence[Fact]:
    """What the page shows for the same calls in whole five minutes."""
    if driver is None:
        return ()
    zone = ZoneInfo(rule.time_zone)
    period = f"{start.astimezone(zone):%H:%M} to {end.astimezone(zone):%H:%M} ({rule.time_zone})"
    return (Fact(period, f"{driver.all_calls:,} calls, {format_usd(driver.all_cost_nano)}"),)


def _facts(rule: Rule, incident: Incident) -> Sequence[Fact]:
    guardrail = rule.guardrail
    until = incident.until.astimezone(ZoneInfo(rule.time_zone))
    blocks = guardrail.action is Action.BLOCK
    return (
        Fact("Guardrail", guardrail.name),
        Fact(f"Most within {minutes_text(guardrail.minutes)}", guardrail.figure(incident.value)),
        Fact("Limit", guardrail.figure(guardrail.limit)),
        Fact("Apps that ask are told", f"{'block' if blocks else 'warn'}, at least until {until:%H:%M} {until:%Z}"),
    )


def _driver_text(driver: store.Driver | None) -> str:
    if driver is None:
        return ""
    what = f"on {driver.model}" if driver.model else "on models that are not named"
    feature = f"feature {driver.feature} " if driver.feature else ""
    return f"{driver.calls:,} of {driver.all_calls:,} calls were {feature}{what}."


def _path(rule: Rule, incident: Incident, start: datetime, end: datetime) -> str:
    """The page that lists these calls."""
    guardrail = rule.guardrail
    if guardrail.per is Per.TRACE:
        return f"/p/{rule.slug}/trace/{incident.subject}/"
    query = {guardrail.per.value: incident.subject}
    query |= {"feature": guardrail.feature} if guardrail.feature else {}
    query |= {"environment": guardrail.environment} if guardrail.environment else {}
    query |= {"from": start.isoformat(timespec="minutes"), "to": end.isoformat(timespec="minutes")}
    return f"/p/{rule.slug}/calls/?{urlencode(query)}"


def _cells(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """Widened to whole five-minute cells, as pages do it, so that message and page show the same sums."""
    first = start - timedelta(seconds=start.timestamp() % _CELL_S)
    last = end + timedelta(seconds=_CELL_S - end.timestamp() % _CELL_S)
    return first, last


def _over(ended: Ended, rules: Sequence[Rule]) -> str:
    rule = next((rule for rule in rules if rule.guardrail.id == ended.guardrail_id), None)
    subject = ended.incident.subject
    if rule is None:
        return f"{subject}: its guardrail was switched off."
    guardrail = rule.guardrail
    if ended.incident.value < guardrail.limit:
        return f"{subject}: the limit of {guardrail.name} was raised to {guardrail.figure(guardrail.limit)}."
    most = guardrail.figure(ended.incident.value)
    whose = f"{guardrail.per.value.capitalize()} {subject}"
    return f"{whose} has stayed below {guardrail.figure(guardrail.limit)} again; the most was {most}."
