"""GPU money: hours split into five buckets, nodes, pools, models and users. From sums kept per hour.

A range is [start, end) in whole UTC hours; buckets of a chart are hours or days of the project's time zone. Money
without a rate is unknown, not 0: ``unrated_us`` beside it says how much GPU time that is.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from costapp.storage.reports.cells import Grain, Scope, bucket_starts, params
from costapp.storage.reports.sql import Connection, run
from costapp.storage.reports.sums import per, ratio

BUCKETS = ("attributed", "busy", "held", "free", "unobserved")
#: What a bucket is, in words.
BUCKET_WORDS = {
    "attributed": "Attributed to calls",
    "busy": "Busy, not traced",
    "held": "Idle, model loaded",
    "free": "Idle, empty",
    "unobserved": "No telemetry",
}
HOURS_US = 3_600_000_000
MILLION = 1_000_000


class Bill(NamedTuple):
    """What GPUs cost, where it went, and the time it was for."""

    cost_nano: int = 0  #: of the time that has a rate; the sum of the five below
    attributed_nano: int = 0
    busy_nano: int = 0
    held_nano: int = 0
    free_nano: int = 0
    unobserved_nano: int = 0
    gpu_us: int = 0  #: the sum of the five below
    attributed_us: int = 0
    busy_us: int = 0
    held_us: int = 0
    free_us: int = 0
    unobserved_us: int = 0
    unrated_us: int = 0
    util_bp_s: int = 0
    util_s: int = 0
    memory_mib_s: int = 0
    memory_total_mib_s: int = 0
    memory_s: int = 0
    energy_mj: int = 0
    energy_us: int = 0

    @property
    def idle_nano(self) -> int:
        return self.held_nano + self.free_nano

    @property
    def known_cost_nano(self) -> int | None:
        """None when no part of the time has a rate: that is not $0."""
        return None if self.gpu_us and self.unrated_us == self.gpu_us else self.cost_nano

    @property
    def per_gpu_hour_nano(self) -> int | None:
        return per(self.cost_nano, self.gpu_us - self.unrated_us, HOURS_US)

    @property
    def utilisation(self) -> float | None:
        """Mean over the time that samples state it, 0 to 1; None when none does."""
        return ratio(self.util_bp_s, self.util_s * 10_000)

    @property
    def memory_used(self) -> float | None:
        return ratio(self.memory_mib_s, self.memory_total_mib_s)

    @property
    def efficiency(self) -> float | None:
        """Time in which GPUs worked, for calls or others, as a share of the time that was paid for."""
        return ratio(self.attributed_us + self.busy_us, self.gpu_us)

    @property
    def mean_watts(self) -> float | None:
        """Per GPU, over the time whose energy is known."""
        return ratio(self.energy_mj * 1000, self.energy_us)

    @property
    def kwh(self) -> float | None:
        """Electric energy of the GPUs; None when nothing is known."""
        return self.energy_mj / 3.6e9 if self.energy_us else None


SUMS = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in Bill._fields)
_NAMED_SUMS = ", ".join(f"sum({name}) as {name}" for name in Bill._fields)
IN_RANGE = "project_id = %(project_id)s and hour_at >= %(start)s and hour_at < %(end)s"


class Pool(NamedTuple):
    pool_id: int  #: 0 = no pool fits
    name: str  #: "" without one
    method: str
    grams_per_kwh: int | None
    pue: Any
    gpus: int  #: seen at once in an hour, at most
    bill: Bill

    @property
    def has_rate(self) -> bool:
        return self.bill.unrated_us < self.bill.gpu_us

    @property
    def grams(self) -> float | None:
        """gCO2e of the electricity, cooling included; None when energy or carbon intensity is not known."""
        kwh = self.bill.kwh
        return None if kwh is None or self.grams_per_kwh is None else kwh * float(self.pue) * self.grams_per_kwh


class Point(NamedTuple):
    bucket_at: datetime
    pool_id: int
    bill: Bill


class Node(NamedTuple):
    node: str
    pool_id: int
    pool: str
    gpu_model: str
    gpus: int
    first_at: datetime
    last_at: datetime
    bill: Bill


class NodeHour(NamedTuple):
    """One field of the heat map."""

    node: str
    bucket_at: datetime
    bill: Bill


def total(conn: Connection, scope: Scope) -> Bill:
    return Bill._make(run(conn, f"select {SUMS} from gpu_hour where {IN_RANGE}", params(scope))[0])


def together(bills: Iterable[Bill]) -> Bill:
    """The bill of several pools or nodes."""
    return Bill(*(sum(column) for column in zip(Bill(), *bills, strict=True)))


def _bucket(scope: Scope, at: str = "hour_at") -> str:
    """The start of the chart bucket an hour lies in. Finer buckets than hours are not kept."""
    return f"date_trunc('day', {at}, %(time_zone)s)" if scope.grain is Grain.DAY else at


# Every figure of the page's head in one pass: nodes are summed up by hour first, so that days are told for hours only.
_BY_HOUR = f"""
with by_hour as (
    select pool_id, hour_at, sum(gpus) as gpus, {_NAMED_SUMS} from gpu_hour where {IN_RANGE} group by 1, 2)"""


def pools(conn: Connection, scope: Scope) -> list[Pool]:
    """Every pool with GPUs in the range, the dearest first; GPUs of no pool are pool 0."""
    return pools_and_course(conn, scope)[0]


def course(conn: Connection, scope: Scope) -> list[Point]:
    """The split over time by pool: bars that add up to the bill. Buckets without GPUs are left out."""
    return pools_and_course(conn, scope)[1]


def pools_and_course(conn: Connection, scope: Scope) -> tuple[list[Pool], list[Point]]:
    """`pools` and `course`, read once."""
    sql = f"""{_BY_HOUR}
        select bucket_at, pool_id, max(gpus)::int, {SUMS}
        from (select *, {_bucket(scope)} as bucket_at from by_hour) hours
        group by grouping sets ((bucket_at, pool_id), (pool_id)) order by 1, 2"""
    rows = run(conn, sql, params(scope))
    points = [Point(row[0], row[1], Bill._make(row[3:])) for row in rows if row[0] is not None]
    known = {row[0]: row[1:] for row in run(conn, _POOLS, params(scope))}
    found = [
        Pool._make((row[1], *known.get(row[1], ("", "sharing", None, 1)), row[2], Bill._make(row[3:])))
        for row in rows
        if row[0] is None
    ]
    return sorted(found, key=lambda pool: (-pool.bill.cost_nano, pool.pool_id)), points


_POOLS = "select id, name, method, grams_per_kwh, pue from costapp_gpupool where project_id = %(project_id)s"


def nodes(conn: Connection, scope: Scope, *, limit: int = 500) -> list[Node]:
    """Every node seen, without a rate too: those first, then the dearest. A node discovered needs no set-up."""
    sql = f"""
        select node, pool_id, coalesce((select name from costapp_gpupool pool where pool.id = pool_id), ''),
               max(gpu_model), max(gpus)::int, min(hour_at), max(hour_at), {SUMS}
        from gpu_hour where {IN_RANGE} group by 1, 2
        order by sum(unrated_us) = sum(gpu_us) desc, sum(cost_nano) desc, 1, 2 limit %(limit)s"""
    return [Node._make((*row[:7], Bill._make(row[7:]))) for row in run(conn, sql, params(scope, limit=limit))]


#: What a field of the heat map says.
_FIELD = ("cost_nano", "gpu_us", "attributed_us", "busy_us", "unrated_us", "util_bp_s", "util_s")
_FIELD_SUMS = ", ".join(f"sum({name})::bigint" for name in _FIELD)


def heat(conn: Connection, scope: Scope, *, names: Sequence[str]) -> list[NodeHour]:
    """Node x bucket for the heat map, as far as its fields need it. Fields without data are missing, not 0."""
    sql = f"""
        select node, {_bucket(scope)}, {_FIELD_SUMS} from gpu_hour
        where {IN_RANGE} and node = any(%(names)s) group by 1, 2 order by 1, 2"""
    rows = run(conn, sql, params(scope, names=list(names)))
    return [NodeHour(row[0], row[1], Bill(**dict(zip(_FIELD, row[2:], strict=True)))) for row in rows]


class IdleTrend(NamedTuple):
    """Idle money of a pool in the range and in as long a time before it."""

    pool_id: int
    pool: str
    held_nano: int
    free_nano: int
    before_nano: int | None  #: None: no GPU of the pool was seen then
    share: float | None  #: of the pool's bill

    @property
    def idle_nano(self) -> int:
        return self.held_nano + self.free_nano


def idle(conn: Connection, scope: Scope) -> list[IdleTrend]:
    """Where money is left lying, most first."""
    sql = """
        select pool_id, coalesce((select name from costapp_gpupool pool where pool.id = pool_id), ''),
               coalesce(sum(held_nano) filter (where hour_at >= %(start)s), 0)::bigint,
               coalesce(sum(free_nano) filter (where hour_at >= %(start)s), 0)::bigint,
               sum(held_nano + free_nano) filter (where hour_at < %(start)s)::bigint,
               coalesce(sum(cost_nano) filter (where hour_at >= %(start)s), 0)::bigint
        from gpu_hour where project_id = %(project_id)s and hour_at >= %(before)s and hour_at < %(end)s
        group by 1 having max(hour_at) >= %(start)s
        order by sum(held_nano + free_nano) filter (where hour_at >= %(start)s) desc, 1"""
    rows = run(conn, sql, params(scope, before=_before(scope)))
    return [IdleTrend._make((*row[:5], ratio(row[2] + row[3], row[5]))) for row in rows]


def _before(scope: Scope) -> datetime:
    return scope.start - (scope.end - scope.start)


class ModelCost(NamedTuple):
    """A served model: what it used, what that cost, with its share of unused time (allocation) and without (usage)."""

    pool_id: int
    pool: str
    model: str  #: "" = GPUs on which no call ran
    cost_nano: int
    attributed_nano: int
    prefill_nano: int
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    gpu_us: int
    active_us: int
    energy_mj: int
    cached_weight: int  #: thousandths of an uncached input token
    grams_per_kwh: int | None
    pue: Any

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.cached_tokens + self.output_tokens

    @property
    def tokens_per_gpu_second(self) -> float | None:
        return ratio(self.tokens * MILLION, self.gpu_us)

    @property
    def output_per_active_second(self) -> float | None:
        return ratio(self.output_tokens * MILLION, self.active_us)

    def per_million(self, kind: str, *, allocation: bool) -> int | None:
        """Nano-dollars per million "input", "cached" or "output" tokens; None when there were none.

        The prompt's part of the money goes to uncached and cached input by the pool's weights, the rest to output.
        ``allocation`` adds unused time in proportion.
        """
        read, written = self.prefill_nano, self.attributed_nano - self.prefill_nano
        if allocation and self.attributed_nano:
            read = read * self.cost_nano // self.attributed_nano
            written = self.cost_nano - read
        if kind == "output":
            return per(written, self.output_tokens, MILLION) if self.output_tokens else None
        weighted = self.input_tokens * 1000 + self.cached_tokens * self.cached_weight
        count, weight = (self.input_tokens, 1000) if kind == "input" else (self.cached_tokens, self.cached_weight)
        return per(read * weight, weighted, MILLION) if count and weighted else None

    def blended_per_million(self, *, allocation: bool) -> int | None:
        """All tokens alike: the figure that list prices are compared with."""
        return per(self.cost_nano if allocation else self.attributed_nano, self.tokens, MILLION)

    @property
    def kwh_per_million(self) -> float | None:
        return ratio(self.energy_mj, self.tokens * 3600) if self.energy_mj else None

    @property
    def grams_per_million(self) -> float | None:
        """gCO2e per million tokens, cooling included."""
        kwh = self.kwh_per_million
        return None if kwh is None or self.grams_per_kwh is None else kwh * float(self.pue) * self.grams_per_kwh


def models(conn: Connection, scope: Scope, *, limit: int = 200) -> list[ModelCost]:
    """Served models by pool, the dearest first. Their costs add up to the bill."""
    sums = ", ".join(f"sum({name})::bigint" for name in ModelCost._fields[3:13])
    sql = f"""
        select pool_id, coalesce(max(pool.name), ''), model, {sums}, coalesce(max(pool.cached_weight), 100),
               max(pool.grams_per_kwh), coalesce(max(pool.pue), 1)
        from gpu_model_hour left join costapp_gpupool pool on pool.id = pool_id and pool.project_id = %(project_id)s
        where gpu_model_hour.{IN_RANGE} group by 1, 3 order by sum(cost_nano) desc, 1, 3 limit %(limit)s"""
    return [ModelCost._make(row) for row in run(conn, sql, params(scope, limit=limit))]


class Use(NamedTuple):
    """Whose calls used a pool, and for how much of the attributed money."""

    pool_id: int
    pool: str
    value: str  #: a feature, team or user; "" = not attributed
    gpu_nano: int
    requests: int


def uses(conn: Connection, scope: Scope, *, by: str = "feature", limit: int = 200) -> list[Use]:
    """Features or teams and the pools they used, dearest first; the sum over all is what was attributed."""
    column = {"feature": "feature", "team": "team"}[by]
    sql = f"""
        select pool_id, coalesce((select name from costapp_gpupool pool where pool.id = pool_id), ''), {column},
               sum(gpu_nano)::bigint, sum(requests)::bigint
        from gpu_use_hour where {IN_RANGE} group by 1, 3 order by 4 desc, 1, 3 limit %(limit)s"""
    return [Use._make(row) for row in run(conn, sql, params(scope, limit=limit))]


def users(conn: Connection, scope: Scope, *, limit: int = 50) -> list[Use]:
    """Users by pool, from the calls themselves: for ranges of a few days."""
    sql = f"""
        select pool_id, coalesce((select name from costapp_gpupool pool where pool.id = pool_id), ''), user_id,
               sum(share.gpu_nano)::bigint, count(*)
        from gpu_share share join charge on charge.project_id = share.project_id and charge.day = share.day
            and charge.trace_id = share.trace_id and charge.span_id = share.span_id
        where share.{IN_RANGE} and {_DAYS.format(table="share")} and {_DAYS.format(table="charge")}
        group by 1, 3 order by 4 desc, 1, 3 limit %(limit)s"""
    return [Use._make(row) for row in run(conn, sql, params(scope, limit=limit))]


_DAYS = "{table}.day between (%(start)s at time zone 'UTC')::date - 1 and (%(end)s at time zone 'UTC')::date"


class Closing(NamedTuple):
    """How far GPU hours are closed, and what could not be split."""

    closed_until: datetime | None  #: end of the newest hour that is worked out
    waiting: int  #: marked hours
    oldest_waiting_at: datetime | None
    calls: int
    lost_calls: int  #: for which no engine was found
    unrated_calls: int  #: whose GPUs have no rate


def closing(conn: Connection, scope: Scope) -> Closing:
    sql = f"""
        select (select max(hour_at) + interval '1 hour' from gpu_hour_state where project_id = %(project_id)s),
               (select count(distinct hour_at) from dirty_gpu_hour where project_id = %(project_id)s),
               (select min(hour_at) from dirty_gpu_hour where project_id = %(project_id)s),
               coalesce(sum(calls), 0)::bigint, coalesce(sum(lost_calls), 0)::bigint,
               coalesce(sum(unrated_calls), 0)::bigint
        from gpu_hour_state where {IN_RANGE}"""
    return Closing._make(run(conn, sql, params(scope))[0])


class BreakEven(NamedTuple):
    """What the project's own traffic on its GPUs amounted to: the inputs of an API-versus-own comparison."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    requests: int
    cost_nano: int  #: of the GPUs, unused time included
    attributed_nano: int
    gpu_us: int
    active_us: int
    hours: int  #: closed hours in the range

    def api_nano(self, *, input_nano: int, cached_nano: int, output_nano: int) -> int:
        """The same tokens at prices per million."""
        worth = self.input_tokens * input_nano + self.cached_tokens * cached_nano + self.output_tokens * output_nano
        return (2 * worth + MILLION) // (2 * MILLION)

    def load_factor(self, api_nano: int) -> float | None:
        """How many times today's traffic the same GPUs must carry to cost as little as the API; 1 = they do now."""
        return ratio(self.cost_nano, api_nano)


def break_even(conn: Connection, scope: Scope, *, pool_id: int | None = None, model: str | None = None) -> BreakEven:
    only = (" and pool_id = %(pool_id)s" if pool_id is not None else "") + (
        " and model = %(model)s" if model is not None else ""
    )
    names = ("input_tokens", "cached_tokens", "output_tokens", "requests", "cost_nano", "attributed_nano", "gpu_us",
             "active_us")  # fmt: skip
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in names)
    sql = f"select {sums}, count(distinct hour_at) from gpu_model_hour where {IN_RANGE}{only}"
    return BreakEven._make(run(conn, sql, params(scope, pool_id=pool_id, model=model))[0])


__all__ = [
    "BUCKETS", "BUCKET_WORDS", "Bill", "BreakEven", "Closing", "IdleTrend", "ModelCost", "Node", "NodeHour", "Point",
    "Pool", "Use", "break_even", "bucket_starts", "closing", "course", "heat", "idle", "models", "nodes", "pools",
    "total", "users", "uses",
]  # fmt: skip
