"""Where the cells of a report come from: the coarsest table that holds exactly what was asked.

Rollups hold every dimension but user and session. Those two are read from ``user_day`` (a user split,
filtered by feature at most) or from ``charge`` by its user and session indexes. Whatever the source,
the rows have the same columns, so one statement serves all, and their sums are equal.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sums import MEASURES


class Grain(Enum):
    """The bucket of a chart. Its value is the width in words."""

    FIVE_MINUTES = "5 minutes"
    HOUR = "1 hour"
    DAY = "1 day"

    @property
    def step(self) -> timedelta:
        return {"5 minutes": timedelta(minutes=5), "1 hour": timedelta(hours=1), "1 day": timedelta(days=1)}[self.value]


class Scope(NamedTuple):
    """What a report covers: one project, ``start <= time < end`` on bucket edges, and filters."""

    project_id: int
    time_zone: str
    start: datetime
    end: datetime
    grain: Grain
    filters: Mapping[str, tuple[str, ...]] = {}
    gpu: bool = True  #: False: cost is what others bill, without GPU money

    def where(self, **filters: tuple[str, ...]) -> "Scope":
        return self._replace(filters={**self.filters, **filters})

    def between(self, start: datetime, end: datetime) -> "Scope":
        return self._replace(start=start, end=end)


TOKENS = "input_tokens + cache_read_tokens + cache_write_tokens + output_tokens + reasoning_tokens"
ROLLUP_DIMENSIONS = ", ".join(d.column for d in DIMENSIONS.values() if d.in_rollup)
ROLLUP_MEASURES = ", ".join(f"({TOKENS}) as tokens" if name == "tokens" else name for name in MEASURES)

#: One charge as a cell. The expressions mirror storage.rollups; a test compares both on real rows.
CHARGE_EXPRESSIONS = {
    "cost_nano": "coalesce(cost_nano, 0)",
    "requests": "1::bigint",
    "unpriced": "(cost_nano is null)::int",
    "errors": "(error is not null)::int",
    "retries": "(flags & 4 <> 0)::int",
    "estimated": "(cost_status = 2 or usage_state = 3)::int",
    "usage_unknown": "(usage_state = 0)::int",
    "input_tokens": "input_tokens::bigint + coalesce(audio_in_tokens, 0) + coalesce(image_in_tokens, 0)",
    "cache_read_tokens": "coalesce(cache_read_tokens, 0)::bigint",
    "cache_write_tokens": "coalesce(cache_write_5m_tokens, 0)::bigint + coalesce(cache_write_1h_tokens, 0)",
    "output_tokens": "output_tokens::bigint + coalesce(audio_out_tokens, 0) + coalesce(image_out_tokens, 0)",
    "reasoning_tokens": "coalesce(reasoning_tokens, 0)::bigint",
    "duration_us": "coalesce(duration_us, 0)",
    "input_nano": "case when cost_nano is null then 0 else input_nano end",
    "cache_read_nano": "case when cost_nano is null then 0 else coalesce(cache_read_nano, 0) end",
    "cache_write_nano": "case when cost_nano is null then 0 else coalesce(cache_write_nano, 0) end",
    "output_nano": "case when cost_nano is null then 0 else output_nano end",
    "other_nano": "case when cost_nano is null then 0 else coalesce(other_nano, 0) end",
    "possible_nano": "coalesce(possible_nano, 0)",
    "reported_nano": "coalesce(reported_nano, 0)",
    "avoided_nano": "coalesce(avoided_nano, 0)",
    "gpu_nano": "case when cost_nano is null then 0 else coalesce(gpu_nano, 0) end",
}
CHARGE_EXPRESSIONS["tokens"] = " + ".join(
    CHARGE_EXPRESSIONS[name]
    for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
)
CHARGE_EXPRESSIONS["priced_tokens"] = f"case when cost_nano is null then 0 else {CHARGE_EXPRESSIONS['tokens']} end"
CHARGE_MEASURES = ", ".join(f"{CHARGE_EXPRESSIONS[name]} as {name}" for name in MEASURES)
#: Measures of a scope without GPU money.
WITHOUT_GPU = {"cost_nano": "cost_nano - gpu_nano", "gpu_nano": "0::bigint"}
CHARGE_DIMENSIONS = ", ".join(d.column for d in DIMENSIONS.values())

#: The cells of a scope, but for its filters.
IN_RANGE = "project_id = %(project_id)s and bucket_at >= %(start)s and bucket_at < %(end)s"
#: As the index of charge has it: a range or order by time that names the cell too is read from the index.
CELL = "date_bin('5 minutes', start_at, 'epoch')"
#: The charges of a scope, but for its filters. `day` (UTC) prunes partitions.
CHARGES_IN_RANGE = f"""project_id = %(project_id)s and start_at >= %(start)s and start_at < %(end)s
    and {CELL} between date_bin('5 minutes', %(start)s, 'epoch') and %(end)s
    and day between (%(start)s at time zone 'UTC')::date and (%(end)s at time zone 'UTC')::date"""


class Unanswerable(Exception):
    """The combination of split and filters would need every call of the range. The text is for people."""


def needs_charges(scope: Scope) -> bool:
    return any(not DIMENSIONS[key].in_rollup for key in scope.filters)


def source(scope: Scope, by: str | None = None) -> str:
    """A sub-select of cells for ``scope``, split by ``by``. Parameters come from ``params(scope)``."""
    if needs_charges(scope):
        return _charges(scope)
    if by is not None:
        require_answerable(scope, by)
    return _rollups(scope)


def require_answerable(scope: Scope, by: str) -> None:
    """Raises Unanswerable for a split that only charges could tell, without an index that finds them."""
    summed = by == "user" and scope.grain is Grain.DAY and set(scope.filters) <= {"feature"}
    if not (DIMENSIONS[by].in_rollup or needs_charges(scope) or summed):
        raise Unanswerable(
            f"{DIMENSIONS[by].plural.capitalize()} are summed per day and feature only. "
            "Choose a range of whole days and remove the other filters, or open one user or session."
        )


def bucket(scope: Scope) -> str:
    """SQL for the start of the chart bucket that a cell lies in."""
    if scope.grain is not Grain.DAY:
        return "date_bin(%(step)s, bucket_at, %(start)s)"
    return "date_trunc('day', bucket_at, %(time_zone)s)" if needs_charges(scope) else "bucket_at"


def params(scope: Scope, **extra: Any) -> dict[str, Any]:
    filters = {f"is_{key}": list(values) for key, values in scope.filters.items()}
    return {
        "project_id": scope.project_id,
        "time_zone": scope.time_zone,
        "start": scope.start,
        "end": scope.end,
        "step": scope.grain.step,
        **filters,
        **extra,
    }


def filter_sql(scope: Scope) -> str:
    return "".join(f" and {DIMENSIONS[key].column} = any(%(is_{key})s)" for key in sorted(scope.filters))


def bucket_starts(scope: Scope) -> list[datetime]:
    """The start of every bucket of the range in UTC, empty ones included; 23- and 25-hour days are one bucket."""
    if scope.grain is not Grain.DAY:
        count = -(-(scope.end - scope.start) // scope.grain.step)
        return [scope.start + i * scope.grain.step for i in range(count)]
    zone = ZoneInfo(scope.time_zone)
    day, starts = scope.start.astimezone(zone).date(), []
    while (start := datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)) < scope.end:
        starts.append(start)
        day += timedelta(days=1)
    return starts


def _rollup_table(scope: Scope) -> str:
    if scope.grain is Grain.DAY:
        return "rollup_day"
    # hour cells begin on full UTC hours: days of a zone such as Asia/Kolkata are built from 5-minute cells
    on_the_hour = scope.start.minute == 0 and scope.end.minute == 0
    return "rollup_hour" if scope.grain is Grain.HOUR and on_the_hour else "rollup_5m"


def _rollups(scope: Scope) -> str:
    cells = f"""select bucket_at, {ROLLUP_DIMENSIONS}, {ROLLUP_MEASURES} from {_rollup_table(scope)}
        where {IN_RANGE}{filter_sql(scope)}"""
    return _separated(scope, cells, ROLLUP_DIMENSIONS)


def _charges(scope: Scope) -> str:
    # the user or session index finds the rows
    cells = f"""select start_at as bucket_at, {CHARGE_DIMENSIONS}, {CHARGE_MEASURES} from charge_full
        where {CHARGES_IN_RANGE}{filter_sql(scope)}"""
    return _separated(scope, cells, CHARGE_DIMENSIONS)


def _separated(scope: Scope, cells: str, dimensions: str) -> str:
    """Cells with or without GPU money, as the scope asks."""
    if scope.gpu:
        return f"({cells}) cells"
    measures = ", ".join(f"{WITHOUT_GPU[name]} as {name}" if name in WITHOUT_GPU else name for name in MEASURES)
    return f"(select bucket_at, {dimensions}, {measures} from ({cells}) with_gpu) cells"


_ACTOR_DAYS = {
    "user_day": "project_id, bucket_at, user_id, feature, requests, errors, unpriced, sessions, tokens",
    "session_day": (
        "project_id, bucket_at, session_id, user_id, feature, first_at, last_at, requests, errors, unpriced, tokens"
    ),
}


def actor_days(scope: Scope, table: str) -> str:
    """``user_day`` or ``session_day``, with or without GPU money, as the scope asks."""
    if scope.gpu:
        return table
    money = ", ".join(f"{expression} as {name}" for name, expression in WITHOUT_GPU.items())
    return f"(select {_ACTOR_DAYS[table]}, {money} from {table}) {table}"
