"""A small company whose every number is known, in a real database, seen through the real pages.

The company is built once per module: pages only read. Accounts and projects that a test adds have names of their own.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client

from costapp.models import Membership, Project
from costapp.models.pricing import PriceList, RateSet
from costapp.services.drain import drain
from costapp.web import palette
from tests import pipeline

PASSWORD = "correct horse battery"
EVIL = "=cmd|' /C calc'!A0 <img src=x onerror=alert(1)>"
OWN_TABLES = "costapp_project, costapp_pricelist, costapp_ledgercheck, auth_user, django_session, sign_in_failure"
numbers = count(1)


class World(NamedTuple):
    conn: psycopg.Connection[Any]
    project: Project
    member: Any
    now: datetime

    def client(self, user: Any = None) -> Client:
        client = Client()
        client.force_login(user or self.member)
        return client

    def scalar(self, sql: str) -> Any:
        row = self.conn.execute(sql).fetchone()
        return row[0] if row else None


@pytest.fixture(scope="module")
def conn(django_db_setup: None, django_db_blocker: Any) -> Iterator[psycopg.Connection[Any]]:
    """A database without rows, whose changes are committed; emptied again afterwards."""
    with django_db_blocker.unblock(), pipeline.open_connection() as connection:
        clear(connection)
        yield connection
        clear(connection)
        connections.close_all()


def clear(connection: psycopg.Connection[Any]) -> None:
    # pytest-django makes a test database only for modules marked django_db: never empty another one
    assert connection.info.dbname.startswith("test_"), "mark the module with pytest.mark.django_db"
    pipeline.empty(connection)
    connection.execute(f"truncate {OWN_TABLES} cascade")
    connection.execute("truncate ingest_log, metric_point")
    palette.forget()


@pytest.fixture(scope="module")
def project(conn: psycopg.Connection[Any]) -> Project:
    return Project.objects.create(slug="acme", name="Acme & Sons", time_zone="Europe/Berlin")


def add_member(project: Project, role: str = Membership.Role.OWNER, name: str = "") -> Any:
    user = get_user_model().objects.create_user(name or f"member-{next(numbers)}", password=PASSWORD)
    Membership.objects.create(project=project, user=user, role=role)
    return user


def add_project() -> Project:
    number = next(numbers)
    return Project.objects.create(slug=f"other-{number}", name=f"Other {number}")


def add_prices(project: Project) -> None:
    prices = PriceList.objects.create(name="Test prices", kind=PriceList.Kind.CUSTOM, project=project)
    rates = {
        "input": {"nano": 2_500_000_000},
        "output": {"nano": 10_000_000_000},
        "cache_read": {"nano": 1_250_000_000},
    }
    for model in ("gpt-4o", "gpt-4o-mini"):
        RateSet.objects.create(price_list=prices, provider="openai", model=model, rates=rates, source="test")


def stories(now: datetime) -> list[Any]:
    """Ten days of traces: three named features, one nobody named, one model without a price, one without usage."""
    spans = []
    for number in range(1, 61):
        start_ns = int((now - timedelta(hours=4 * number)).timestamp()) * pipeline.SECOND_NS
        feature = ("checkout", "search", EVIL, None)[number % 4]
        who: dict[str, Any] = {"user": f"u-{number % 5}", "session": f"s-{number % 9}"} if number % 3 else {}
        facts: dict[str, Any] = {"feature": feature, "team": "core", "environment": "production", **who}
        spans.append(pipeline.root(number, start_ns=start_ns, **facts))
        model = {7: "nobody-knows-1", 8: "gpt-4o-mini"}.get(number % 10, "gpt-4o")
        stated: dict[str, Any] = {"model_requested": model, "model_responded": model}
        if number % 20 == 3:
            stated |= {"input": None, "output": None, "status": 2, "error": "TimeoutError"}
        else:
            stated |= {"input": 1000 + number, "cache_read": number}
        spans.append(pipeline.call(number, start_ns=start_ns + pipeline.SECOND_NS, **stated))
    return spans


@pytest.fixture(scope="module")
def world(conn: psycopg.Connection[Any], project: Project) -> World:
    now = datetime.now(UTC)
    add_prices(project)
    member = add_member(project, name="mia")
    pipeline.store(conn, stories(now), project_id=project.pk)
    drain(conn)
    return World(conn, project, member, now)
