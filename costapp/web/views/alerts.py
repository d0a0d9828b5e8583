"""Alerts: what is open, what was, and the rules that watch. Acknowledge and snooze work with and without scripts."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from costapp.core.alert_metrics import amount_text
from costapp.core.alert_sentences import rule_sentence
from costapp.core.alerts import LEVELS, Source
from costapp.models import AlertRule, Silence
from costapp.services import alerts as service
from costapp.services.guardrails.lift import lift
from costapp.services.rule_readings import why_unreadable
from costapp.services.rule_telling import LABELS, subject_name
from costapp.storage import rule_states as states
from costapp.storage.reports import alert_lists as reports
from costapp.storage.reports.alert_lists import AlertRow, Wanted
from costapp.web import charts
from costapp.web.access import Role, Visit, project_page
from costapp.web.page import frame, show
from costapp.web.suggested_rules import SUGGESTIONS

PAST_SHOWN = 30
#: Rules are judged every minute; later than this, something does not run.
PULSE_STALE = timedelta(minutes=3)
SNOOZES = {"1h": timedelta(hours=1), "4h": timedelta(hours=4), "1d": timedelta(days=1), "7d": timedelta(days=7)}
SNOOZE_WORDS = (("1h", "1 hour"), ("4h", "4 hours"), ("1d", "1 day"), ("7d", "7 days"))
LONGEST_SNOOZE = timedelta(days=90)
LEVEL_CSS = {"critical": "bad", "warning": "warn", "info": "accent"}


class RuleRow(NamedTuple):
    """A rule in the list: what it does, how it stands, and what it last saw."""

    rule: AlertRule
    sentence: str
    css: str
    state: str
    value: str
    worst: str
    spark: list[str]
    status: states.Status | None


class Choice(NamedTuple):
    """One link of the filter bar."""

    label: str
    query: str
    is_on: bool


@project_page()
def alerts(visit: Visit) -> HttpResponse:
    wanted = _wanted(visit)
    before = visit.request.GET.get("before", "")
    opened, count = reports.open_alerts(visit.conn, visit.project.pk, wanted)
    past = reports.past_alerts(
        visit.conn, visit.project.pk, wanted, before=int(before) if before.isdecimal() and len(before) < 18 else None,
        limit=PAST_SHOWN + 1,
    )  # fmt: skip
    rules = _rule_rows(visit)
    context = frame(
        visit,
        None,
        nav="alerts",
        title="Alerts",
        opened=opened,
        open_count=count,
        past=past[:PAST_SHOWN],
        older=past[PAST_SHOWN - 1].id if len(past) > PAST_SHOWN else None,
        is_filtered=wanted != Wanted(),
        choices=_choices(wanted),
        watched=next((row.rule for row in rules if row.rule.pk == wanted.source_id), None),
        rules=rules,
        suggestions=[] if rules else list(SUGGESTIONS.values()),
        silences=_silences(visit),
        has_channels=visit.project.channels.exists(),
        stale=rules_are_stale(visit),
        pulse=states.pulse(visit.conn, visit.project.pk),
        **_item_context(visit),
    )
    return show(visit, "alerts.html", context)


def _item_context(visit: Visit) -> dict[str, Any]:
    """What an alert's row needs."""
    soon = (visit.now + timedelta(days=1)).astimezone(visit.zone)
    return {"snoozes": SNOOZE_WORDS, "snooze_until": soon.strftime("%Y-%m-%dT%H:00"), "level_css": LEVEL_CSS}


def _wanted(visit: Visit) -> Wanted:
    query = visit.request.GET
    rule = query.get("rule", "")
    is_rule = rule.isdecimal() and len(rule) < 18
    return Wanted(
        sources=tuple(each.value for each in Source if each.value in query.getlist("source")),
        levels=tuple(each.value for each in LEVELS if each.value in query.getlist("level")),
        source_id=int(rule) if is_rule else None,
    )._replace(**({"sources": (Source.RULE.value,)} if is_rule else {}))


def _choices(wanted: Wanted) -> list[Choice]:
    found = [Choice("All", "", not wanted.sources and not wanted.levels)]
    found += [
        Choice(level.value.capitalize(), f"level={level.value}", wanted.levels == (level.value,))
        for level in reversed(LEVELS)
    ]
    names = {Source.BUDGET: "Budgets", Source.RULE: "Rules", Source.GUARDRAIL: "Guardrails",
             Source.ANOMALY: "Anomalies", Source.SYSTEM: "Costapp itself"}  # fmt: skip
    is_whole = wanted.source_id is None
    return found + [
        Choice(name, f"source={source.value}", wanted.sources == (source.value,) and is_whole)
        for source, name in names.items()
    ]


def _silences(visit: Visit) -> list[Silence]:
    """Those that hold messages back now, and the ones planned for the next days."""
    soon = visit.now + timedelta(days=7)
    found = visit.project.silences.filter(ends_at__gt=visit.now, starts_at__lt=soon)
    return list(found.order_by("starts_at")[:20])


def rules_are_stale(visit: Visit) -> bool:
    """Whether rules should have been judged by now and were not: the worker or its clock does not run."""
    waiting = visit.project.alert_rules.filter(enabled=True, created_at__lt=visit.now - PULSE_STALE)
    if not waiting.exists():
        return False
    pulse = states.pulse(visit.conn, visit.project.pk)
    return pulse is None or visit.now - pulse.evaluated_at > PULSE_STALE


def _rule_rows(visit: Visit) -> list[RuleRow]:
    statuses = states.statuses(visit.conn, visit.project.pk)
    rows = [_rule_row(rule, statuses.get(rule.pk)) for rule in visit.project.alert_rules.all()]
    order = {"bad": 0, "warn": 1, "accent": 2, "good": 3, "": 4}
    return sorted(rows, key=lambda row: (order[row.css], row.rule.name))


def _rule_row(rule: AlertRule, status: states.Status | None) -> RuleRow:
    if problem := why_unreadable(rule):
        return RuleRow(rule, problem, "bad", "cannot be judged", "", "", [], None)
    sentence = rule_sentence(rule.wording(LABELS))
    if not rule.enabled:
        return RuleRow(rule, sentence, "", "off", "", "", [], None)
    if status is None:
        return RuleRow(rule, sentence, "accent", "not judged yet", "", "", [], None)
    css, state = "good", "quiet"
    if status.open_alerts:
        css, state = "bad", f"{status.open_alerts} open"
    elif status.value is None:
        css, state = "accent", "nothing to judge"
    value = amount_text(status.value, rule.the_metric.unit) if status.value is not None else ""
    spark = charts.sparkline([float(number) for number in status.recent]) if len(status.recent) > 1 else []
    return RuleRow(rule, sentence, css, state, value, subject_name(rule.by, status.worst), spark, status)


@project_page()
def alert(visit: Visit, alert_id: int) -> HttpResponse:
    found = _alert_of(visit, alert_id)
    rule = visit.project.alert_rules.filter(pk=found.source_id).first() if found.source == Source.RULE else None
    context = frame(
        visit,
        None,
        nav="alerts",
        title=found.title,
        alert=found,
        rule=rule,
        events=reports.events(visit.conn, visit.project.pk, alert_id),
        deliveries=reports.deliveries(visit.conn, visit.project.pk, alert_id),
        **_item_context(visit),
    )
    return show(visit, "alert.html", context)


def _alert_of(visit: Visit, alert_id: int) -> AlertRow:
    found = reports.one_alert(visit.conn, visit.project.pk, alert_id)
    if found is None:
        raise Http404
    return found


@require_POST
@project_page(Role.EDITOR)
def acknowledge(visit: Visit, alert_id: int) -> HttpResponse:
    _alert_of(visit, alert_id)
    with transaction.atomic():
        visit.conn.execute("select 1")  # opens the transaction on this connection
        service.acknowledge(visit.conn, visit.project.pk, alert_id, visit.request.user.get_username(), visit.now)
    return _answer(visit, alert_id, "Acknowledged. Reminders stop until it gets worse.")


@require_POST
@project_page(Role.EDITOR)
def snooze(visit: Visit, alert_id: int) -> HttpResponse:
    _alert_of(visit, alert_id)
    until = _snooze_until(visit)
    if until is None:
        messages.error(visit.request, "Choose a time in the next 90 days.")
        return _answer(visit, alert_id, "")
    with transaction.atomic():
        visit.conn.execute("select 1")
        service.snooze(visit.conn, visit.project.pk, alert_id, until, visit.request.user.get_username(), visit.now)
    return _answer(visit, alert_id, "Snoozed. Reminders stop until then, or until it gets worse.")


@require_POST
@project_page(Role.EDITOR)
def lift_block(visit: Visit, alert_id: int) -> HttpResponse:
    """Let go whom a guardrail warns or blocks."""
    _alert_of(visit, alert_id)
    with transaction.atomic():
        visit.conn.execute("select 1")
        is_lifted = lift(visit.conn, visit.project.pk, alert_id, visit.request.user.get_username(), visit.now)
    if is_lifted:
        return _answer(visit, alert_id, "Lifted. Apps that ask hear it within two seconds.")
    messages.error(visit.request, "There is nothing to lift: this is over.")
    return _answer(visit, alert_id, "")


def _snooze_until(visit: Visit) -> datetime | None:
    asked = visit.request.POST
    if asked.get("for") in SNOOZES:
        return visit.now + SNOOZES[asked["for"]]
    try:
        until = datetime.fromisoformat(asked.get("until", ""))
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=visit.zone)
    return until if visit.now < until <= visit.now + LONGEST_SNOOZE else None


def _answer(visit: Visit, alert_id: int, said: str) -> HttpResponse:
    """The alert's row alone for htmx, else the page again."""
    if getattr(visit.request, "htmx", False):
        row = _alert_of(visit, alert_id)
        return show(visit, "parts/alert_item.html", {"visit": visit, "row": row, **_item_context(visit)})
    if said:
        messages.success(visit.request, said)
    return redirect("alert", slug=visit.project.slug, alert_id=alert_id)
