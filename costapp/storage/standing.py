"""What questions to the guard are answered from: open incidents, and how the budgets stand. Small rows, no sums."""

from datetime import datetime
from typing import Any, NamedTuple

import orjson
import psycopg

from costapp.core.budgets import Basis
from costapp.core.guardrails import Action, Allowance, Decision, Standing, Stop, budget_says
from costapp.storage.guardrails import RULE_COLUMNS, RULE_LIMIT, guardrail_of

Connection = psycopg.Connection[Any]

#: More than this are not read: the incidents that end last, and the budgets nearest to their limit, count.
MAX_STOPS = 10_000
MAX_BUDGETS = 2_000

_PROJECT = "select guard_fails_closed from costapp_project where id = %s"
_STOPS = f"""
select state.subject, state.value, state.until, {RULE_COLUMNS}
from guard_state state join costapp_guardrail rule on rule.id = state.guardrail_id and rule.enabled
where state.project_id = %(project_id)s and state.is_open and state.until > %(now)s and state.value >= {RULE_LIMIT}
order by state.until desc limit %(most)s
"""

# The riskiest, so that what is cut off is far from its limit.
_BUDGETS = """
select budget.name, budget.dimension, budget.values, budget.filters, budget.blocks, budget.thresholds, reading.subject,
       reading.spent_nano, greatest(0, reading.amount_nano + reading.carried_nano) as limit_nano, period.end_at
from costapp_budget budget
join budget_period period on period.project_id = budget.project_id and period.budget_id = budget.id
    and period.revision = budget.revision and period.start_at <= %(now)s and period.end_at > %(now)s
join budget_reading reading on reading.project_id = period.project_id and reading.budget_id = period.budget_id
    and reading.period_key = period.period_key
where budget.project_id = %(project_id)s and budget.enabled
order by reading.spent_nano::numeric / greatest(1, reading.amount_nano + reading.carried_nano) desc,
         reading.budget_id, reading.subject
limit %(most)s
"""


class ProjectStanding(NamedTuple):
    standing: Standing
    fails_closed: bool


def load_standing(conn: Connection, project_id: int, *, now: datetime) -> ProjectStanding:
    """Everything the guard knows about a project now."""
    row = conn.execute(_PROJECT, (project_id,)).fetchone()
    parameters = {"project_id": project_id, "now": now, "most": MAX_STOPS}
    stops = [_stop(*row) for row in conn.execute(_STOPS, parameters)]
    budgets = [_allowance(*row) for row in conn.execute(_BUDGETS, parameters | {"most": MAX_BUDGETS})]
    return ProjectStanding(Standing(stops, budgets), bool(row and row[0]))


def _stop(subject: str, value: int, until: datetime, *fields: Any) -> Stop:
    guardrail = guardrail_of(fields)
    decision = Decision.BLOCK if guardrail.action is Action.BLOCK else Decision.WARN
    reason = f"{guardrail.told(subject, value)} (guardrail {guardrail.name})"
    return Stop(guardrail.per.value, subject, decision, reason, until, guardrail.feature, guardrail.environment)


def _allowance(
    name: str, dimension: str, values: Any, filters: Any, blocks: bool, thresholds: Any, subject: str,
    spent_nano: int, limit_nano: int, end_at: datetime,
) -> Allowance:  # fmt: skip
    scope = {key: frozenset(chosen) for key, chosen in _json(filters).items()}
    if dimension:
        scope[dimension] = frozenset(_json(values) or [subject])
    actual = [percent for basis, percent in _json(thresholds) if basis == Basis.ACTUAL]
    decision, reason = budget_says(
        name, subject, spent_nano=spent_nano, limit_nano=limit_nano, thresholds=actual, blocks=blocks
    )
    return Allowance(name, scope, limit_nano, spent_nano, end_at, decision, reason)


def _json(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str | bytes) else value
