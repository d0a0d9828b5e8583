"""End what a guardrail says about one session, trace or user before its time is over."""

from datetime import datetime

import psycopg

from costapp.services import alerts
from costapp.storage import guardrails as store


def lift(conn: psycopg.Connection, project_id: int, alert_id: int, actor: str, now: datetime) -> bool:
    """Whether there was something to lift. In a transaction of the caller.

    Calls that come later are judged as ever, together with those of the guardrail's last minutes.
    """
    store.wait_for_project(conn, project_id)
    lifted = store.lift(conn, project_id, alert_id, now)
    for key, subject in lifted:
        alerts.resolve(conn, project_id, [key], {key: f"{subject}: lifted by {actor}."}, now)
    return bool(lifted)
