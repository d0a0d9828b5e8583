"""Two workers at once, and a worker that dies: one message, or none and then one."""

import threading

import psycopg
import pytest

from costapp.models import Budget, Channel
from costapp.services.evaluate_budgets import evaluate, evaluate_due
from tests import pipeline
from tests.budgets.conftest import NOW, look, make, open_alerts, reading, spend, titles


class Worker(threading.Thread):
    """Evaluates a budget on a connection of its own."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget, self.conn, self.outcome = budget, pipeline.open_connection(), None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = evaluate(self.conn, self.budget.project_id, self.budget.pk, now=NOW)
        except psycopg.OperationalError as error:
            self.outcome = error

    def done(self):
        self.join(timeout=60)
        assert not self.is_alive()
        self.conn.close()
        return self.outcome


def wait_until_blocked(conn, worker: Worker) -> None:
    sql = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    while conn.execute(sql, (worker.conn.info.backend_pid,)).fetchone() != (True,):
        assert worker.is_alive()


@pytest.fixture
def budget(project, channel: Channel) -> Budget:
    return make(project, channel, thresholds=[["actual", 80], ["actual", 100]])


@pytest.mark.parametrize("table", ["alert", "notification", "budget_reading", "budget_period"])
def test_two_workers_that_see_the_same_crossing_tell_it_once(conn, project, budget, table):
    """The first one is held in the middle of its transaction, wherever that is, while the second one comes."""
    spend(conn, project, 110)
    with pipeline.open_connection() as barrier:
        with barrier.transaction():
            barrier.execute(f"lock table {table} in share row exclusive mode")
            first = Worker(budget)
            wait_until_blocked(conn, first)
            second = Worker(budget).done()
            assert second.opened == 0
        assert first.done().opened == 2
    assert len(titles(conn)) == 1
    assert look(conn, budget).opened == 0


def test_many_workers_at_once_tell_once(conn, project, budget):
    for dollars in (85, 20):
        spend(conn, project, dollars)
        for worker in [Worker(budget) for _ in range(6)]:
            worker.done()
    look(conn, budget)
    assert len(titles(conn)) == 2


@pytest.mark.parametrize("table", ["budget_reading", "budget_period"])
def test_a_worker_that_dies_before_its_commit_leaves_nothing_and_the_next_tells_it(conn, project, budget, table):
    spend(conn, project, 110)
    with pipeline.open_connection() as barrier, barrier.transaction():
        barrier.execute(f"lock table {table} in share row exclusive mode")
        doomed = Worker(budget)
        wait_until_blocked(conn, doomed)
        conn.execute("select pg_terminate_backend(%s)", (doomed.conn.info.backend_pid,))
        assert isinstance(doomed.done(), psycopg.OperationalError)
    assert (titles(conn), open_alerts(conn)) == ([], [])
    look(conn, budget)
    assert len(titles(conn)) == 1
    assert reading(conn, budget).states["actual-100"]["state"] == "open"


def test_what_changed_is_due_at_once_and_what_did_not_is_not(conn, project, budget):
    spend(conn, project, 1)
    assert evaluate_due(conn).subjects == 1
    conn.execute("update rollup_pace set computed_at = computed_at - interval '1 minute'")
    assert evaluate_due(conn).subjects == 0
    spend(conn, project, 1)
    assert evaluate_due(conn).subjects == 1
