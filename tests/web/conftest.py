"""A small company whose every number is known, in a real database, seen through the real pages."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from costapp.models import Membership, Project
from costapp.models.pricing import PriceList, RateSet
from costapp.services.drain import drain
from costapp.web import palette
from tests import pipeline

PASSWORD = "correct horse battery"
EVIL = "=cmd|' /C calc'!A0 <img src=x onerror=alert(1)>"


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
        return self.conn.execute(sql).fetchone()[0]


@pytest.fixture
def conn(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        connection.execute("truncate sign_in_failure")
        palette.forget()
        yield connection


@pytest.fixture
def project(conn: psycopg.Connection[Any]) -> Project:
    return Project.objects.create(slug="acme", name="Acme & Sons", time_zone="Europe/Berlin")


def add_member(project: Project, name: str, role: str = Membership.Role.OWNER) -> Any:
    user = get_user_model().objects.create_user(name, password=PASSWORD)
    Membership.objects.create(project=project, user=user, role=role)
    return user


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
        spans.append(
            pipeline.root(number, start_ns=start_ns, feature=feature, team="core", environment="production", **who)
        )
        model = {7: "nobody-knows-1", 8: "gpt-4o-mini"}.get(number % 10, "gpt-4o")
        facts: dict[str, Any] = {
            "model_requested": model,
            "model_responded": model,
            "input": 1000 + number,
            "cache_read": number,
        }
        if number % 20 == 3:
            facts |= {"input": None, "output": None, "cache_read": None, "status": 2, "error": "RateLimitError"}
        spans.append(pipeline.call(number, start_ns=start_ns + pipeline.SECOND_NS, **facts))
    return spans


@pytest.fixture
def world(conn: psycopg.Connection[Any], project: Project) -> World:
    now = datetime.now(UTC)
    add_prices(project)
    member = add_member(project, "mia")
    pipeline.store(conn, stories(now), project_id=project.pk)
    drain(conn)
    return World(conn, project, member, now)
