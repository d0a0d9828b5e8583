"""Doorbells: each finds its work in the database, so losing, repeating or reordering any message is harmless."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from costapp.celery import ATTRIBUTE_GROUPS
from costapp.services.attribute import attribute_pending
from costapp.services.evaluate_budgets import evaluate_due
from costapp.services.evaluate_rules import evaluate_rules
from costapp.services.guardrails.judge import judge
from costapp.services.retention import apply_retention, compact_ingest_log, make_partitions
from costapp.services.rollup import recompute_dirty
from costapp.services.verify_ledger import verify_and_publish
from costapp.storage.connection import connect

#: A bell works at most this long, so that the others get their turn.
BUDGET_S = 2.0

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


@shared_task(name="costapp.rollup")
def rollup() -> None:
    with _connection() as conn:
        recompute_dirty(conn, budget_s=BUDGET_S)


@shared_task(name="costapp.budgets")
def budgets() -> None:
    with _connection() as conn:
        evaluate_due(conn, budget_s=BUDGET_S)


@shared_task(name="costapp.judge_guardrails")
def judge_guardrails() -> None:
    with _connection() as conn:
        judge(conn, now=timezone.now())


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


@shared_task(name="costapp.evaluate_rules")
def evaluate_alert_rules() -> None:
    with _connection() as conn:
        evaluate_rules(conn)
