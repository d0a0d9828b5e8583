"""The embedded PostgreSQL: found, created, private, durable."""

import pytest
from django.db import connection


@pytest.mark.django_db
def test_the_suite_runs_on_a_real_postgresql():
    with connection.cursor() as cursor:
        cursor.execute("select current_setting('server_version_num')::int")
        assert cursor.fetchone()[0] >= 150000
