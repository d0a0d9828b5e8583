"""Pipeline tests run real transactions on real connections."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from costapp.models import Project
from tests import pipeline


@pytest.fixture
def conn(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection


@pytest.fixture
def project(conn: psycopg.Connection[Any]) -> Project:
    return Project.objects.create(slug="acme", name="Acme")
