"""Probes, and what pages say while the database is away."""

import psycopg
import pytest
from django.db import OperationalError
from django.test import RequestFactory

from costapp.web.health import HealthMiddleware
from costapp.web.outage import DatabaseOutageMiddleware


def never(request):
    raise AssertionError("a probe must not reach the pages")


def test_healthz_needs_no_database_and_no_allowed_host():
    answer = HealthMiddleware(never)(RequestFactory().get("/healthz", headers={"host": "10.0.0.7"}))
    assert answer.status_code == 200


@pytest.mark.django_db
def test_readyz_is_ok_with_a_migrated_database(client):
    assert client.get("/readyz").json() == {"status": "ok"}


def test_readyz_says_that_the_database_does_not_answer(monkeypatch):
    def away():
        raise OperationalError("connection refused")

    monkeypatch.setattr("costapp.web.health.schema_is_current", away)
    answer = HealthMiddleware(never)(RequestFactory().get("/readyz"))
    assert answer.status_code == 503
    assert answer["Retry-After"]
    assert b"does not answer" in answer.content


def test_readyz_says_that_migrations_are_missing(monkeypatch):
    monkeypatch.setattr("costapp.web.health.schema_is_current", lambda: False)
    answer = HealthMiddleware(never)(RequestFactory().get("/readyz"))
    assert answer.status_code == 503
    assert b"migrate" in answer.content


def outage_answer(cause):
    error = OperationalError("x")
    error.__cause__ = cause
    return DatabaseOutageMiddleware(never).process_exception(RequestFactory().get("/"), error)


def test_a_database_outage_is_a_503_page_in_words():
    answer = outage_answer(psycopg.OperationalError("connection refused"))
    assert answer.status_code == 503
    assert answer["Retry-After"] == "5"
    assert b"The database is away" in answer.content
    assert b"connection refused" not in answer.content


def test_a_query_that_took_too_long_says_what_to_do():
    assert b"shorter time range" in outage_answer(psycopg.errors.QueryCanceled("statement timeout")).content


def test_other_errors_are_left_alone():
    assert DatabaseOutageMiddleware(never).process_exception(RequestFactory().get("/"), ValueError("bug")) is None
