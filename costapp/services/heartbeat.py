"""An evaluation that has stopped must not look like silence: each leaves a heartbeat, and missing ones are told."""

from datetime import datetime

import psycopg

from costapp.core.alerts import Fact, Finding, Level, Source
from costapp.services import alerts
from costapp.storage import notifications as store
from costapp.storage.notifications import Heartbeat


def evaluation_heartbeat(conn: psycopg.Connection, name: str, now: datetime, *, interval_s: int) -> None:
    """``name`` says what ran, in the plural: "budgets", "alert rules". ``interval_s``: when it runs again."""
    store.beat(conn, name, now, interval_s)


def check_heartbeats(conn: psycopg.Connection, now: datetime) -> list[Heartbeat]:
    """Tell every project that has channels what stopped, once per stop, and when it goes on. Returns what stopped."""
    stopped = store.stopped(conn, now)
    channels = store.projects_with_channels(conn)
    open_now = [alert for alert in alerts.open_of(conn, Source.SYSTEM, sorted(channels)) if _is_ours(alert.key)]
    findings = [finding(project_id, beat) for beat in stopped for project_id in channels]
    wanted = {(each.project_id, each.key) for each in findings}
    over = [alert for alert in open_now if (alert.project_id, alert.key) not in wanted]
    if not over and wanted <= {(alert.project_id, alert.key) for alert in open_now}:
        return stopped
    with conn.transaction():
        for project_id, channel_ids in channels.items():
            mine = [each for each in findings if each.project_id == project_id]
            alerts.open_alerts(conn, mine, {each.key: channel_ids for each in mine}, now)
            keys = [alert.key for alert in over if alert.project_id == project_id]
            alerts.resolve(conn, project_id, keys, {key: f"Costapp evaluates {_name(key)} again." for key in keys}, now)
    return stopped


def finding(project_id: int, beat: Heartbeat) -> Finding:
    since = f"{beat.at:%Y-%m-%d %H:%M} UTC"
    return Finding(
        project_id=project_id, source=Source.SYSTEM, source_id=0,
        key=f"system/heartbeat/{beat.name}/{int(beat.at.timestamp())}",
        level=Level.CRITICAL, title=f"Costapp has not evaluated {beat.name} since {since}.", subject={},
        facts=(Fact("Last run", since), Fact("Runs every", f"{beat.interval_s} s"),
               Fact("What to do", "See that the worker and beat run.")),
        driver="", path="", group_key="system/heartbeat", period_start=None, period_end=None,
        complete_until=beat.at,
    )  # fmt: skip


def _is_ours(key: str) -> bool:
    return key.startswith("system/heartbeat/")


def _name(key: str) -> str:
    return key.split("/")[2]
