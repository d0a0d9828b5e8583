"""Why a call on GPUs of one's own cost what it cost: the hours it ran in, and its share of each pool's money."""

from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from costapp.storage.reports.sql import Connection, run

_HOUR = timedelta(hours=1)


class CallHour(NamedTuple):
    """What one hour gave a call of one pool's money."""

    hour_at: datetime
    active_us: int  #: how long the call ran in this hour, its wait in the queue left out
    pool_id: int | None  #: None: no share (yet)
    pool: str
    method: str
    gpu_nano: int | None
    is_estimate: bool  #: some of the GPUs have no rate
    pool_nano: int | None  #: what all calls of the hour were attributed in the pool
    is_closed: bool
    is_marked: bool  #: waits to be worked out again

    @property
    def why_no_share(self) -> str:
        """ "" = it has one."""
        if self.gpu_nano is not None:
            return ""
        if self.is_marked or not self.is_closed:
            return "still open: it is worked out ten minutes after it ended"
        return "closed without a share: no engine, or no rate, is known for it"

    @property
    def end_at(self) -> datetime:
        return self.hour_at + _HOUR


_HOURS = """
select call.hour_at,
       (least(call.end_us, extract(epoch from call.hour_at) * 1000000 + 3600000000)
        - greatest(call.start_us, extract(epoch from call.hour_at) * 1000000))::bigint,
       share.pool_id, coalesce(pool.name, ''), coalesce(pool.method, ''), share.gpu_nano,
       coalesce(share.is_estimate, false),
       (select sum(attributed_nano)::bigint from gpu_hour
        where gpu_hour.project_id = %(project_id)s and gpu_hour.hour_at = call.hour_at
            and gpu_hour.pool_id = share.pool_id),
       coalesce(state.applied_at is not null, false),
       exists (select from dirty_gpu_hour dirty
               where dirty.project_id = %(project_id)s and dirty.hour_at = call.hour_at)
from gpu_call call
left join gpu_share share on share.project_id = %(project_id)s and share.day = %(day)s
    and share.trace_id = %(trace_id)s and share.span_id = %(span_id)s and share.hour_at = call.hour_at
left join costapp_gpupool pool on pool.id = share.pool_id and pool.project_id = %(project_id)s
left join gpu_hour_state state on state.project_id = %(project_id)s and state.hour_at = call.hour_at
where call.project_id = %(project_id)s and call.day = %(day)s and call.trace_id = %(trace_id)s
    and call.span_id = %(span_id)s
order by 1, 3"""


def hours_of(conn: Connection, project_id: int, *, day: date, trace_id: UUID, span_id: int) -> list[CallHour]:
    """The hours of a self-hosted call, each with the pools that it has a share of; empty for other calls."""
    values: dict[str, Any] = {"project_id": project_id, "day": day, "trace_id": trace_id, "span_id": span_id}
    return [CallHour._make(row) for row in run(conn, _HOURS, values)]
