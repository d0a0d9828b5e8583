"""What a person says about an anomaly. A dismissal ends its alert, and teaches detection what not to tell again."""

from datetime import datetime
from typing import Any

import psycopg

from costapp.services import alerts
from costapp.services.detect_anomalies import alert_key
from costapp.storage import anomalies as store
from costapp.storage.anomalies import Anomaly

Connection = psycopg.Connection[Any]

VERDICTS = ("confirmed", "dismissed")
LONGEST_REASON = 300


def judge_anomaly(
    conn: Connection, project_id: int, anomaly_id: int, *, verdict: str, reason: str, by: str, now: datetime
) -> Anomaly | None:
    """The anomaly as it was before; None when this project has no such one. ``verdict`` "" takes it back."""
    with conn.transaction():
        before = store.of_id(conn, project_id, anomaly_id)
        if before is None:
            return None
        text = reason.strip()[:LONGEST_REASON]
        store.judge(conn, project_id, anomaly_id, verdict=verdict, reason=text, by=by if verdict else "", now=now)
        if verdict == "dismissed":
            key = alert_key(anomaly_id)
            alerts.resolve(conn, project_id, [key], {key: f"Dismissed by {by}. {text}".strip()}, now, tell=False)
    return before
