"""What inference servers did in a span of time, from their counters: restarts and unknown stretches told apart."""

from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row

from costapp.core.gpu_samples import MAX_GAP_SECONDS

Connection = psycopg.Connection[Any]


class EngineFigures(NamedTuple):
    """Growth of the counters of one engine. None: the server does not tell."""

    engine_ref: int
    kind: str
    target: str
    served_model: str
    replica: str
    prompt_tokens: int | None
    generation_tokens: int | None
    cached_tokens: int | None
    requests: int | None
    queue_us: int | None
    prefill_us: int | None
    decode_us: int | None
    preemptions: int | None
    restarts: int  # how often a counter began anew
    known_us: int  # stretch that samples cover; the rest of the span is unknown


_COUNTERS = ("prompt_tokens", "generation_tokens", "cached_tokens", "requests", "queue_us", "prefill_us", "decode_us",
             "preemptions")  # fmt: skip
_GROWN = ", ".join(
    f"sum(case when {name} >= {name}_before then {name} - {name}_before"
    f" when {name}_before is not null then {name} end)::bigint as {name}"
    for name in _COUNTERS
)
# The step from one sample to the next, both inside the span or just before it. A counter that fell began anew at 0.
_INCREASES = f"""
with step as (
    select engine_ref, sampled_at, lag(sampled_at) over in_time as before_at,
           {", ".join(f"{name}, lag({name}) over in_time as {name}_before" for name in _COUNTERS)}
    from engine_sample
    where project_id = %(project_id)s and sampled_at >= %(first)s::timestamptz - %(gap)s * interval '1 second'
      and sampled_at < %(end)s and day between (%(first)s::timestamptz at time zone 'UTC')::date - 1
      and (%(end)s::timestamptz at time zone 'UTC')::date
    window in_time as (partition by engine_ref order by sampled_at)
),
growth as (
    select engine_ref,
           {_GROWN},
           count(*) filter (where generation_tokens < generation_tokens_before or requests < requests_before
                               or prompt_tokens < prompt_tokens_before)::int as restarts,
           sum(case when sampled_at - before_at <= %(gap)s * interval '1 second'
                    then extract(epoch from sampled_at - before_at) * 1000000 else 0 end)::bigint as known_us
    from step where sampled_at >= %(first)s and before_at is not null group by engine_ref
)
select growth.engine_ref, engine.kind, engine.target, engine.served_model, engine.replica,
       {", ".join(f"growth.{name}" for name in _COUNTERS)}, restarts, known_us
from growth join engine_seen engine on engine.project_id = %(project_id)s and engine.engine_ref = growth.engine_ref
order by engine.target, engine.served_model, engine.replica"""


def engine_figures(conn: Connection, project_id: int, *, first: datetime, end: datetime) -> list[EngineFigures]:
    """Of every engine that told something in [first, end), what its counters grew by."""
    values = {"project_id": project_id, "first": first, "end": end, "gap": MAX_GAP_SECONDS}
    with conn.cursor(row_factory=class_row(EngineFigures)) as cursor:
        return cursor.execute(_INCREASES, values).fetchall()
