"""The log of the collectors: sums stay what they were when it is compacted; keys remember when they were used."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.conf import settings
from django.db import connections

from costapp.models import IngestKey, Project
from costapp.storage import ingest_log, keys

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SUMS = """select sum(requests), sum(received), sum(stored), sum(duplicates), sum(rejected), sum(bytes),
                 sum((reasons ->> 'x')::int), sum((reasons ->> 'y')::int) from ingest_log"""


@pytest.fixture
def conn(transactional_db):
    name = connections["default"].settings_dict["NAME"]
    with psycopg.connect(settings.DATABASE_URL, dbname=name, autocommit=True) as connection:
        yield connection
        connection.execute("truncate ingest_log")


def fill(conn):
    for number in range(6):
        for key_id in (None, 1):
            reasons = {"x": 1, "y": number} if number % 2 else {}
            entry = ingest_log.LogEntry(3, key_id, "traces", "http", 1, 10, 7, 2, 1, 100, reasons)
            ingest_log.append_entries(conn, [entry])
            at = NOW - timedelta(minutes=25 * number)
            conn.execute("update ingest_log set at = %s where at > now() - interval '1 minute'", (at,))


def test_compacting_keeps_every_sum_and_leaves_one_row_per_full_hour_and_key(conn):
    fill(conn)
    before = conn.execute(SUMS).fetchone()
    ingest_log.compact(conn, before=NOW)
    versions = conn.execute("select ctid, at from ingest_log order by 1").fetchall()
    ingest_log.compact(conn, before=NOW)
    assert conn.execute("select ctid, at from ingest_log order by 1").fetchall() == versions  # nothing rewritten
    assert conn.execute(SUMS).fetchone() == before
    hours = conn.execute("select at, count(*) from ingest_log where key_id = 1 group by at order by at").fetchall()
    noon = NOW.replace(minute=0)
    assert hours[:2] == [(noon - timedelta(hours=2), 1), (noon - timedelta(hours=1), 1)]
    assert all(at >= noon for at, _ in hours[2:])


def test_a_key_is_found_by_its_hash_with_what_its_project_wants(conn):
    project = Project.objects.create(slug="p", name="P", attribute_names={"feature": ["acme.feature"]})
    key, _plain = IngestKey.issue(project, "k")
    found = keys.find_key(conn, key.key_hash)
    assert found == keys.KeyRecord(key.pk, project.pk, None, None, False, bytes(project.hash_secret),
                                   {"feature": ["acme.feature"]})  # fmt: skip
    assert keys.find_key(conn, "0" * 64) is None


def test_the_last_use_of_a_key_is_written_at_most_once_a_minute(conn):
    key, _plain = IngestKey.issue(Project.objects.create(slug="p", name="P"), "k")
    for seconds, expected in ((0, 0), (30, 0), (61, 61)):
        keys.touch_keys(conn, {key.pk: NOW + timedelta(seconds=seconds)})
        key.refresh_from_db()
        assert key.last_used_at == NOW + timedelta(seconds=expected)
