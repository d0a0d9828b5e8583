"""What questions to the guard are answered from: open incidents, and how the budgets stand. Small rows, no sums."""

from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from costapp.core.guardrails import Action, Decision, Standing, Stop
from costapp.storage.guardrails import RULE_COLUMNS, guardrail_of

Connection = psycopg.Connection[Any]

#: More rows than this are not read: the project's most recent incidents count.
MAX_ROWS = 10_000

_PROJECT = "select guard_fails_closed from costapp_project where id = %s"
_STOPS = f"""
select state.subject, state.value, state.until, {RULE_COLUMNS}
from guard_state state join costapp_guardrail rule on rule.id = state.guardrail_id and rule.enabled
where state.project_id = %(project_id)s and state.is_open and state.until > %(now)s
order by state.until desc limit %(most)s
"""


class ProjectStanding(NamedTuple):
    standing: Standing
    fails_closed: bool


def load_standing(conn: Connection, project_id: int, *, now: datetime) -> ProjectStanding:
    """Everything the guard knows about a project now."""
    row = conn.execute(_PROJECT, (project_id,)).fetchone()
    parameters = {"project_id": project_id, "now": now, "most": MAX_ROWS}
    stops = [_stop(*row) for row in conn.execute(_STOPS, parameters)]
    return ProjectStanding(Standing(stops), bool(row and row[0]))


def _stop(subject: str, value: int, until: datetime, *fields: Any) -> Stop:
    guardrail = guardrail_of(fields)
    decision = Decision.BLOCK if guardrail.action is Action.BLOCK else Decision.WARN
    reason = f"{guardrail.told(subject, value)} (guardrail {guardrail.name})"
    return Stop(guardrail.per.value, subject, decision, reason, until, guardrail.feature, guardrail.environment)
