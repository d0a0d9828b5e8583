from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection

from costapp.core.pricing import RateBook
from costapp.models import Project
from costapp.services.import_prices import import_catalogue
from costapp.storage.rates import load_catalogue
from tests import pipeline


@pytest.fixture(scope="session")
def catalogue_book(django_db_setup: None, django_db_blocker: object) -> RateBook:
    """The whole catalogue of the installed package, through the database and back, rolled back at once."""
    from django.db import transaction

    with django_db_blocker.unblock(), transaction.atomic():  # type: ignore[attr-defined]
        import_catalogue()
        catalogue = load_catalogue(connection.connection)
        transaction.set_rollback(True)
    return RateBook((), names=catalogue.names, catalogue=catalogue.rate_sets)


@pytest.fixture
def conn(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    """A worker's connection, and no data of earlier tests."""
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection


@pytest.fixture
def project(conn: psycopg.Connection[Any]) -> Project:
    return Project.objects.create(slug="acme", name="Acme", time_zone="Europe/Berlin")
