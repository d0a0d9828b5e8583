"""Doorbells: small, and wired to work that exists."""

import time

from costapp import celery, tasks
from costapp.models import Channel
from costapp.services.drain import drain
from costapp.storage import outbox
from tests.pipeline import call, drop_partitions, root, store, totals


def test_every_bell_rings_a_task_and_every_task_has_a_bell():
    rung = {bell.task for bell in celery.SCHEDULE.values()}
    known = {name for name in celery.app.tasks if name.startswith("costapp.")}
    assert rung == known


def test_the_groups_of_attribute_cover_every_shard_once():
    groups = sorted(bell.argument for bell in celery.SCHEDULE.values() if bell.task == "costapp.attribute")
    assert groups == list(range(celery.ATTRIBUTE_GROUPS))


def test_a_bell_that_was_not_heard_in_time_is_dropped():
    for entry in celery.clock.conf.beat_schedule.values():
        assert 0 < entry["options"]["expires"] <= 3600


def test_the_bells_bring_spans_to_a_page_and_leave_nothing_to_do(conn, project, settings, monkeypatch):
    settings.DATABASE_URL = conn.info.dsn + f" password={conn.info.password}"
    monkeypatch.setattr(tasks, "_local", tasks.threading.local())
    store(conn, [span for n in range(40) for span in (root(n, feature="search", session="s"), call(n))],
          project_id=project.id)  # fmt: skip
    for group in range(celery.ATTRIBUTE_GROUPS):
        tasks.attribute(group)
    tasks.rollup()
    assert totals(conn, "sum(requests)::int, min(feature)", "rollup_day") == (40, "search")
    tasks.partitions()
    tasks.retention()
    tasks.compact_log()
    tasks.verify_ledger()
    assert totals(conn, "sum(differences)::int", "costapp_ledgercheck") == (0,)
    drain(conn)
    assert outbox.backlog(conn) == (0, 0, 0, None)
    tasks._local.conn.close()
    drop_partitions(conn)


def test_a_worker_opens_a_new_connection_after_the_database_was_away(conn, project, settings, monkeypatch):
    settings.DATABASE_URL = conn.info.dsn + f" password={conn.info.password}"
    monkeypatch.setattr(tasks, "_local", tasks.threading.local())
    tasks.rollup()
    tasks._local.conn.close()
    tasks.rollup()
    assert not tasks._local.conn.closed
    tasks._local.conn.close()


def test_after_a_restart_evaluations_get_their_time_before_they_are_missed(conn, project, settings, monkeypatch):
    settings.DATABASE_URL = conn.info.dsn + f" password={conn.info.password}"
    monkeypatch.setattr(tasks, "_local", tasks.threading.local())
    Channel.objects.create(project=project, name="#finops", kind="webhook", enabled=True)
    conn.execute("insert into heartbeat values ('budgets', now() - interval '1 day', 60)")
    monkeypatch.setattr(tasks, "STARTED_S", time.monotonic())  # the tests may have begun long ago
    tasks.notify()
    assert totals(conn, "count(*)::int", "alert") == (0,)
    monkeypatch.setattr(tasks, "STARTED_S", tasks.STARTED_S - 1000)
    tasks.notify()
    assert totals(conn, "min(title)", "alert")[0].startswith("Costapp has not evaluated budgets since")
    tasks._local.conn.close()
    tasks.courier().pool.shutdown()
    tasks.courier.cache_clear()
