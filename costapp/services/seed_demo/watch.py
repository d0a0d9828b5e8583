"""What the invented company watches: budgets sized by what it spends, alert rules and a guardrail; and their past.

Set once, when the project has nothing of the kind. The past is made by the ordinary evaluations, asked how things
stood at moments of the last weeks, so alerts of the demo's incidents are there with true figures. Nobody is told:
the one channel is switched off.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from costapp.core.guardrails import Action
from costapp.core.local_days import local_day
from costapp.core.money import NANO_PER_USD, divide_half_up
from costapp.models import AlertRule, Budget, Channel, Guardrail, Project
from costapp.services.evaluate_budgets import evaluate
from costapp.services.evaluate_rules import evaluate_rules
from costapp.services.seed_demo import company
from costapp.storage.reports import spend
from costapp.storage.reports.cells import Grain, Scope

Connection = psycopg.Connection[Any]

HISTORY_DAYS = 28
#: Rules are asked about each quarter of the past days.
RULES_EVERY = timedelta(hours=6)
_MONTH_DAYS = 30
_CENT_NANO = NANO_PER_USD // 100

#: name -> fields, and which share of the amount the last thirty days are (percent). Dimension and value "" = project.
BUDGETS: Mapping[str, tuple[dict[str, Any], int]] = {
    "All AI": ({"owner": "Finance", "note": "Agreed for the quarter; ask before raising it."}, 88),
    "Every feature": ({"dimension": "feature", "note": "For features without a budget of their own."}, 90),
    "Support bot": ({"dimension": "feature", "values": ["support-bot"], "owner": "Customer care"}, 94),
    "Code assistant": ({"dimension": "feature", "values": ["code-assist"], "owner": "Engineering"}, 107),
}
#: Budgets per day, whose past shows the incidents: percent of what a middling day costs.
DAILY = {"Support bot, per day": ("support-bot", 170), "Code assistant, per day": ("code-assist", 230)}

RULES: Mapping[str, dict[str, Any]] = {
    "Dearer answers": {
        "metric": "cost_per_1k", "by": "feature", "window": "24h", "condition": "rises", "warning": Decimal(60),
        "critical": Decimal(150), "minimum_requests": 100, "note": "Look at the prompt version first.",
    },
    "Failing calls": {
        "metric": "error_rate", "by": "feature", "window": "3h", "condition": "above", "warning": Decimal(5),
        "critical": Decimal(15), "minimum_requests": 50,
    },
    "Cache lost": {
        "metric": "cache_hit", "window": "24h", "condition": "below", "warning": Decimal(40),
        "filters": {"feature": ["code-assist"]}, "minimum_requests": 50,
    },
    "Calls without a price": {
        "metric": "unpriced_share", "window": "24h", "condition": "above", "warning": Decimal(1),
        "note": "Add a price in the admin, then re-price.",
    },
    "Slow search": {
        "metric": "latency_p95", "window": "1h", "condition": "above", "warning": Decimal(20),
        "filters": {"feature": ["search-answers"]}, "minimum_requests": 30, "lasting_minutes": 15,
    },
}  # fmt: skip


def watch_demo(conn: Connection, project: Project, *, now: datetime) -> bool:
    """Set and evaluate everything, unless something of it is there already. ``conn`` must be in autocommit mode."""
    if any(kind.objects.filter(project=project).exists() for kind in (Budget, AlertRule, Guardrail)):
        return False
    channel = Channel.objects.create(
        project=project, name="Finance (demo, switched off)", kind=Channel.Kind.EMAIL, enabled=False,
        config={"to": ["finance@larkfield.example"]},
    )  # fmt: skip
    _set_guardrails(project)
    _set_rules(project)
    monthly = _set_budgets(conn, project, now)
    daily = _set_daily(conn, project, now)
    _live_through(conn, project, daily, now)
    for budget in monthly:
        evaluate(conn, project.pk, budget.pk)
        budget.channels.add(channel)
    return True


def _set_guardrails(project: Project) -> None:
    Guardrail.give_first(project)
    Guardrail.objects.create(
        project=project, name="Agents that go round in circles", feature=company.RUNAWAY_LOOP.feature, limit_value=40,
        minutes=5, action=Action.BLOCK.value, hold_minutes=10, level="critical",
    )  # fmt: skip


def _set_rules(project: Project) -> None:
    for name, fields in RULES.items():
        AlertRule.objects.create(project=project, name=name, **fields)


def _set_budgets(conn: Connection, project: Project, now: datetime) -> list[Budget]:
    """Rolling ones: a calendar month would be nearly empty when the demo is made on its first days."""
    spent = _by_feature(conn, project, now, days=_MONTH_DAYS)
    found = []
    for name, (fields, percent) in BUDGETS.items():
        values = fields.get("values") or list(spent)
        middle_nano = sum(spent.get(value, 0) for value in values)
        if fields.get("dimension") and not fields.get("values"):
            middle_nano = sorted([0, 0, *spent.values()])[-2]  # so that one feature is above, and most far below
        rolling = {"period": Budget.Period.ROLLING, "rolling_days": _MONTH_DAYS}
        period = rolling if fields.get("values") else {}
        found.append(
            Budget.objects.create(
                project=project, name=name, amount_nano=_round_amount(middle_nano * 100, percent), **fields, **period
            )
        )
    return found


def _set_daily(conn: Connection, project: Project, now: datetime) -> list[Budget]:
    found = []
    for name, (feature, percent) in DAILY.items():
        days = sorted(_of_days(conn, project, feature, now))
        if days:
            amount_nano = _round_amount(days[len(days) // 2] * percent, 100)
            found.append(
                Budget.objects.create(
                    project=project,
                    name=name,
                    dimension="feature",
                    values=[feature],
                    period=Budget.Period.DAY,
                    amount_nano=amount_nano,
                    thresholds=[["actual", 100]],
                )
            )
    return found


def _live_through(conn: Connection, project: Project, daily: list[Budget], now: datetime) -> None:
    """Ask the evaluations how things stood, from the oldest moment to now."""
    zone = ZoneInfo(project.time_zone)
    moments = [(now - RULES_EVERY * n, True) for n in range(1, HISTORY_DAYS * 4)]
    for days_ago in range(1, HISTORY_DAYS):
        evening = datetime.combine(now.astimezone(zone).date() - timedelta(days=days_ago), time(23, 30), zone)
        moments.append((evening.astimezone(UTC), False))
    for moment, is_for_rules in sorted(moments):
        if is_for_rules:
            evaluate_rules(conn, now=moment, only=project.pk)
        else:
            for budget in daily:
                evaluate(conn, project.pk, budget.pk, now=moment)
    for budget in daily:
        evaluate(conn, project.pk, budget.pk)


def _by_feature(conn: Connection, project: Project, now: datetime, *, days: int) -> dict[str, int]:
    """What each feature cost in the last local days, today included."""
    scope = _days(project, now, first=days - 1, last=0)
    return {row.value: row.sums.cost_nano or 0 for row in spend.split(conn, scope, "feature").rows}


def _of_days(conn: Connection, project: Project, feature: str, now: datetime) -> list[int]:
    """What a feature cost on each of the last whole days."""
    scope = _days(project, now, first=_MONTH_DAYS, last=1).where(feature=(feature,))
    return [point.cost_nano for point in spend.series(conn, scope, "feature", values=None, before=None)]


def _days(project: Project, now: datetime, *, first: int, last: int) -> Scope:
    """From so many local days ago to so many, both included."""
    today, zone = now.astimezone(ZoneInfo(project.time_zone)).date(), project.time_zone
    start_at = local_day(today - timedelta(days=first), zone).start_at
    end_at = local_day(today - timedelta(days=last), zone).end_at
    return Scope(project.pk, zone, start_at, end_at, Grain.DAY)


def _round_amount(nano: int, divisor: int) -> int:
    """A round sum of money: three leading digits, at least a cent."""
    cents = max(1, divide_half_up(nano, divisor * _CENT_NANO))
    step: int = 10 ** max(0, len(str(cents)) - 3)
    return divide_half_up(cents, step) * step * _CENT_NANO
