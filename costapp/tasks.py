"""Doorbells: each finds its work in the database, so losing, repeating or reordering any message is harmless."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psycopg
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from costapp.celery import ATTRIBUTE_GROUPS
from costapp.services.allocate_gpu_hours import allocate_due
from costapp.services.attribute import attribute_pending
from costapp.services.deliver import Courier
from costapp.services.detect_anomalies import detect_anomalies
from costapp.services.digest import queue_digests
from costapp.services.evaluate_budgets import evaluate_due
from costapp.services.evaluate_rules import evaluate_rules
from costapp.services.guardrails.judge import judge
from costapp.services.heartbeat import check_heartbeats, evaluation_heartbeat
from costapp.services.reprice_queue import work_off
from costapp.services.retention import apply_retention, compact_ingest_log, make_partitions
from costapp.services.rollup import recompute_dirty
from costapp.services.verify_ledger import verify_and_publish
from costapp.storage.connection import connect

#: A bell works at most this long, so that the others get their turn.
BUDGET_S = 2.0
#: The bells of budgets, rules and guardrails ring at least this often; silent for twice as long, they are told of.
HEARTBEAT_S = 60
#: After a restart every evaluation gets its time to run before it is missed.
STARTED_S = time.monotonic()

_local = threading.local()


@contextmanager
def _connection() -> Iterator[psycopg.Connection]:
    """This worker's connection, opened again when the database went away."""
    conn: psycopg.Connection | None = getattr(_local, "conn", None)
    if conn is None or conn.closed:
        conn = _local.conn = connect(settings.DATABASE_URL, application_name="costapp-worker")
    try:
        yield conn
    except psycopg.OperationalError:
        conn.close()
        raise


@shared_task(name="costapp.attribute")
def attribute(group: int) -> None:
    with _connection() as conn:
        attribute_pending(conn, group=group, groups=ATTRIBUTE_GROUPS, budget_s=BUDGET_S)


@shared_task(name="costapp.gpu_hours")
def gpu_hours() -> None:
    with _connection() as conn:
        allocate_due(conn, budget_s=BUDGET_S)


@shared_task(name="costapp.rollup")
def rollup() -> None:
    with _connection() as conn:
        recompute_dirty(conn, budget_s=BUDGET_S)


@shared_task(name="costapp.reprice")
def reprice_history() -> None:
    with _connection() as conn:
        work_off(conn, budget_s=BUDGET_S)


@shared_task(name="costapp.budgets")
def budgets() -> None:
    with _connection() as conn:
        evaluate_due(conn, budget_s=BUDGET_S)
        evaluation_heartbeat(conn, "budgets", timezone.now(), interval_s=HEARTBEAT_S)


@shared_task(name="costapp.judge_guardrails")
def judge_guardrails() -> None:
    with _connection() as conn:
        judge(conn, now=timezone.now())
        evaluation_heartbeat(conn, "guardrails", timezone.now(), interval_s=HEARTBEAT_S)


@shared_task(name="costapp.compact_ingest_log")
def compact_log() -> None:
    with _connection() as conn:
        compact_ingest_log(conn)


@shared_task(name="costapp.partitions")
def partitions() -> None:
    with _connection() as conn:
        make_partitions(conn)


@shared_task(name="costapp.retention")
def retention() -> None:
    with _connection() as conn:
        apply_retention(conn)


@shared_task(name="costapp.verify_ledger")
def verify_ledger() -> None:
    with _connection() as conn:
        verify_and_publish(conn)


@cache
def courier() -> Courier:
    """The sending threads of this worker process; made after it was forked."""
    return Courier(lambda: connect(settings.DATABASE_URL, application_name="costapp-courier"), lambda: timezone.now())


@shared_task(name="costapp.notify")
def notify() -> None:
    with _connection() as conn:
        if time.monotonic() - STARTED_S > 2 * HEARTBEAT_S:
            check_heartbeats(conn, timezone.now())
        courier().deliver_due(conn, budget_s=BUDGET_S)


@shared_task(name="costapp.digests")
def digests() -> None:
    with _connection() as conn:
        queue_digests(conn, timezone.now())


@shared_task(name="costapp.evaluate_rules")
def evaluate_alert_rules() -> None:
    with _connection() as conn:
        evaluate_rules(conn)
        evaluation_heartbeat(conn, "alert rules", timezone.now(), interval_s=HEARTBEAT_S)


@shared_task(name="costapp.detect_anomalies")
def find_anomalies() -> None:
    with _connection() as conn:
        detect_anomalies(conn)
        evaluation_heartbeat(conn, "anomalies", timezone.now(), interval_s=10 * HEARTBEAT_S)
