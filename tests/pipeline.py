"""What tests of the pipeline share: spans as short stories, and the whole derived state as one value."""

from collections.abc import Iterable
from typing import Any

import psycopg
from django.db import connection as django_connection

from costapp.core.values import Role, Span, SpanFacts
from costapp.storage import partitions
from costapp.storage.connection import connect
from costapp.storage.spans import insert_spans

SECOND_NS = 1_000_000_000
NOON_NS = 1_780_056_000 * SECOND_NS  # 2026-05-29 12:00 UTC

DERIVED_TABLES = (
    "charge_full", "rollup_5m", "rollup_hour", "rollup_day", "latency_hour", "latency_day", "latency_hour_by",
    "latency_day_by", "session_day", "user_day", "activity_day",
)  # fmt: skip
DATA_TABLES = (
    "span", "dirty_trace", "dirty_cell", "dirty_actor", "charge_revision", "rollup_pace", "rollup_zone",
    "shared_response", "odd_trace", "retention_horizon", "charge", "charge_kind", *DERIVED_TABLES[1:],
    "alert", "alert_event", "notification", "heartbeat", "rule_state", "rule_status", "rule_pulse",
    "anomaly", "anomaly_pulse",
    "guard_mark", "guard_state",
    "gpu_device", "gpu_place", "gpu_sample", "gpu_gap", "engine_seen", "engine_sample", "dirty_gpu_hour",
    "gpu_target", "gpu_call", "gpu_share", "gpu_hour_state", "gpu_hour", "gpu_model_hour", "gpu_use_hour", "gpu_setup",
)  # fmt: skip


def open_connection() -> psycopg.Connection[Any]:
    """A connection of its own to the test database, as a worker has one."""
    settings = django_connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    return connect(psycopg.conninfo.make_conninfo(**{name: settings[name] for name in names if settings.get(name)}))


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def root(trace: int, span: int = 1, *, start_ns: int = NOON_NS, **facts: Any) -> Span:
    facts = {"name": "GET /ask", "service": "web", "duration_us": 900_000, **facts}
    return Span(trace_id(trace), span, 0, start_ns, SpanFacts(**facts))


def call(trace: int, span: int = 2, *, parent: int = 1, start_ns: int = NOON_NS + SECOND_NS, **facts: Any) -> Span:
    """A model call of 1000 tokens in and 100 out."""
    facts = {
        "name": "chat gpt-4o", "service": "web", "duration_us": 500_000, "role": Role.CALL, "provider_raw": "openai",
        "operation": "chat", "model_requested": "gpt-4o", "model_responded": "gpt-4o", "input": 1000, "output": 100,
        "response_id": f"resp-{trace}-{span}", **facts,
    }  # fmt: skip
    return Span(trace_id(trace), span, parent, start_ns, SpanFacts(**facts))


def store(conn: psycopg.Connection[Any], spans: Iterable[Span], *, project_id: int = 1) -> int:
    return insert_spans(conn, project_id, list(spans))


def fingerprint(conn: psycopg.Connection[Any], tables: Iterable[str] = DERIVED_TABLES) -> dict[str, list[str]]:
    """Every row of the derived tables as text, sorted: equal if and only if not one byte differs."""
    return {table: sorted(row for (row,) in conn.execute(f"select {table}::text from {table}")) for table in tables}


def totals(conn: psycopg.Connection[Any], expression: str, table: str = "charge_full") -> tuple[Any, ...]:
    row = conn.execute(f"select {expression} from {table}").fetchone()
    assert row is not None
    return row


def empty(conn: psycopg.Connection[Any]) -> None:
    assert conn.info.dbname.startswith("test_"), "only a test database is ever emptied"
    conn.execute(f"truncate {', '.join(DATA_TABLES)}")


def price(project: Any, *, input_nano: int = 2_500_000_000, output_nano: int = 10_000_000_000) -> Any:
    """A price list of the project's own for every gpt-4o model: $2.50 and $10 per million tokens."""
    from costapp.models import PriceList, RateSet

    price_list = PriceList.objects.create(project=project, name="Own prices")
    rates = {"input": {"nano": input_nano}, "output": {"nano": output_nano}, "cache_read": {"nano": input_nano // 2}}
    return RateSet.objects.create(price_list=price_list, provider="openai", model="gpt-4o*", rates=rates)


def drop_partitions(conn: psycopg.Connection[Any]) -> None:
    for table in partitions.GRAINS:
        for partition in partitions.existing(conn, table):
            conn.execute(f"drop table {partition.name}")
