"""Money for GPUs that do nothing: one series per pool, judged by the share of time in which its GPUs worked.

The value is what idle time cost in a closed hour. Less traffic on the same GPUs, or more GPUs for the same traffic,
is odd; a night as quiet as every night is not.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import psycopg

from anomaly.anomalies import anomalies
from anomaly.budget import threshold_for
from anomaly.detect import Detector, Verdicts
from costapp.core.money import divide_half_up, format_usd
from costapp.services.anomalies.causes import DAYS_BACK, Cause, window_of
from costapp.services.anomalies.series import Limits, Odd, matters, told
from costapp.storage.reports.anomaly_pools import POOL, PoolHour, pool_hours, pool_use, pool_words

Connection = psycopg.Connection[Any]

#: Of the other signals, calls by feature tell the same sooner and with a cause.
SIGNALS = frozenset({"idle", "capacity"})
#: GPUs that work less than this do nothing: half of a thousandth is no change.
LEAST_WORK = 0.01
#: A change of traffic or GPUs below this is not told as the reason, in percent.
LEAST_CHANGE = 10


def judge_pools(
    conn: Connection, project_id: int, zone: str, until: datetime, since: datetime, limits: Limits, others: int
) -> tuple[list[Odd], int]:
    """Anomalies that lasted until ``since`` or later, and how many pools were judged beside ``others`` series."""
    hour = until.replace(minute=0, second=0, microsecond=0)
    by_pool: dict[int, list[PoolHour]] = {}
    for row in pool_hours(conn, project_id, hour - limits.history, hour, limit=limits.series):
        by_pool.setdefault(row.pool_id, []).append(row)
    threshold = threshold_for(max(1.0, limits.alerts_per_week), others + len(by_pool))
    found = [
        odd
        for pool_id, rows in sorted(by_pool.items())
        for odd in _odd(pool_id, rows, zone, threshold)
        if odd.end_at > since and matters(odd, limits.least_nano)
    ]
    return found, len(by_pool)


def _odd(pool_id: int, rows: Sequence[PoolHour], zone: str, threshold: float) -> list[Odd]:
    hours, idle = [row.hour_at for row in rows], [row.known_idle_nano for row in rows]
    frame = {
        "timestamp": hours,
        "value": [np.nan if nano is None else nano for nano in idle],
        "gpu_util": [np.nan if row.worked is None else max(LEAST_WORK, row.worked) for row in rows],
    }
    detector = Detector({"timezone": zone, "step_seconds": 3600, "metric": "gpu_idle_cost"})
    verdicts: Verdicts = detector.explain(frame)
    telling = np.array([signal in SIGNALS for signal in verdicts.signal], dtype=bool)
    verdicts = verdicts._replace(score=np.where(telling, verdicts.score, 0.0))
    found = anomalies([at.timestamp() for at in hours], idle, verdicts, threshold)
    return [told(POOL, str(pool_id), hours, idle, verdicts, anomaly) for anomaly in found]


def cause_of_pool(conn: Connection, project_id: int, zone: str, odd: Odd) -> Cause:
    """What moved: traffic, GPUs, or neither; against the same hours of the days before."""
    start, end = window_of(odd)
    use = pool_use(conn, project_id, int(odd.value), start, end, days_back=DAYS_BACK)
    name = use.name or pool_words(int(odd.value))
    subject = f"Pool {name}" if int(odd.value) else "GPUs of no pool"
    since = f"{odd.start_at.astimezone(ZoneInfo(zone)):%-d %b, %H:%M}"
    title = f"{subject}: {format_usd(odd.above_nano)} idle above expected since {since}"
    reason = _moved("requests", use.requests, use.requests_before, use.days)
    reason = reason or _moved("GPU time", use.gpu_us, use.gpu_us_before, use.days)
    detail = {
        "drivers": [], "alike": False, "user": None, "parts": None, "before": None,
        "window": [start.isoformat(), end.isoformat()], "signal": odd.anomaly.signal,
        "course": odd.course._asdict(), "pool": name,
    }  # fmt: skip
    return Cause(f"{title}{': ' if reason else ''}{reason}.", detail)


def _moved(what: str, now: int, before: int, days: int) -> str:
    """``before`` is of ``days`` windows. Less traffic and more GPUs explain idle time."""
    if not before or not days:
        return ""
    change = divide_half_up((now * days - before) * 100, before)
    if what == "requests":
        return f"requests fell by {-change} %" if change <= -LEAST_CHANGE else ""
    return f"{what} rose by {change} % and requests did not fall" if change >= LEAST_CHANGE else ""
