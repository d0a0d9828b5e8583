"""Any order, duplication, batching, lateness, number of workers: not one byte of the result differs.

Random schedules first; then the interleavings that random schedules seldom meet, forced with real
connections and events. Each forced test also shows what would happen without the guard it is about.
"""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costapp.core.values import Role, Span
from costapp.services import attribute
from costapp.services.attribute import attribute_shard, attribute_shards
from costapp.services.drain import drain
from costapp.services.rollup import recompute_dirty
from costapp.storage import outbox
from tests.pipeline import NOON_NS, SECOND_NS, call, empty, fingerprint, open_connection, price, root, store, totals

DAY_NS = 86_400 * SECOND_NS
LATE_NS = NOON_NS + DAY_NS // 2 - 2 * SECOND_NS  # two seconds before midnight UTC


def company() -> list[Span]:
    """Traces of every awkward kind: late and missing parents, twins in other shards, midnight, wrappers, failures."""
    spans: list[Span] = []
    for n in range(1, 9):  # ordinary, attributed by the root
        spans += [root(n, feature=f"f{n % 3}", user=f"u{n % 4}", session=f"s{n % 5}"), call(n, 2), call(n, 3)]
    spans += [call(20, 2), call(21, 2, parent=0)]  # nobody says what for
    for n, twin in ((30, 47), (31, 63), (32, 32 + 16)):  # one call seen in two traces, in other and in equal shards
        spans += [root(n, feature="shared"), call(n, 2, response_id=f"same-{n}")]
        spans += [call(twin, 2, parent=0, response_id=f"same-{n}", scope="proxy", name="proxied", user="gateway")]
    spans += [root(70, start_ns=LATE_NS, feature="night", session="owl")]  # ends after midnight
    spans += [call(70, n, start_ns=LATE_NS + n * SECOND_NS) for n in range(2, 6)]
    spans += [root(80, role=Role.AGGREGATE, input=2000, output=200, feature="wrapped"), call(80, 2), call(80, 3)]
    spans += [root(90, role=Role.MAYBE, input=500, output=5, model_requested="gpt-4o", provider_raw="openai")]
    spans += [call(91, 2, parent=0, status=2, error="429", input=None, output=None), call(91, 3, parent=0)]
    return spans


@pytest.fixture
def expected(conn, project):
    """The derived state of the whole company in one shot, and a clean table afterwards."""
    price(project)
    project.time_zone = "America/New_York"
    project.save()
    store(conn, company(), project_id=project.id)
    drain(conn)
    state = fingerprint(conn)
    assert totals(conn, "count(*) > 20, sum(cost_nano) > 0, count(distinct feature) >= 6") == (True, True, True)
    empty(conn)
    return state


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rng=st.randoms(use_true_random=False), batches=st.integers(1, 9), work=st.lists(st.integers(0, 3), max_size=9))
def test_any_schedule_of_deliveries_and_jobs_gives_the_same_bytes(conn, project, expected, rng, batches, work):
    empty(conn)
    spans = company()
    spans += rng.sample(spans, k=len(spans) // 4)  # redelivered
    rng.shuffle(spans)
    size = -(-len(spans) // batches)
    for number in range(batches):
        store(conn, spans[number * size : (number + 1) * size], project_id=project.id)
        effort = work[number] if number < len(work) else 0
        for shard in rng.sample(range(outbox.SHARDS), k=effort * 5):
            attribute_shard(conn, shard, limit=rng.choice([1, 3, 100]))
        if effort > 1:
            recompute_dirty(conn, force=rng.random() < 0.5)
    drain(conn)
    assert fingerprint(conn) == expected


def test_replaying_everything_changes_nothing(conn, project, expected):
    for _ in range(2):
        store(conn, company(), project_id=project.id)
        drain(conn)
    outbox_before = fingerprint(conn, ["charge_revision"])
    assert store(conn, reversed(company()), project_id=project.id) == 0
    for day in ("2026-05-29", "2026-05-30"):
        outbox.mark_day(conn, project.id, day=day)
    assert drain(conn) == 0
    assert fingerprint(conn) == expected
    assert fingerprint(conn, ["charge_revision"]) == outbox_before


def test_several_receivers_and_workers_at_once_give_the_same_bytes(conn, project, expected):
    spans = company() * 2
    random.Random(7).shuffle(spans)
    stop = threading.Event()

    def receive(part: list[Span]) -> None:
        with open_connection() as own:
            for first in range(0, len(part), 5):
                store(own, part[first : first + 5], project_id=project.id)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        with open_connection() as own:
            while not stop.is_set():
                attribute_shards(own, rng.sample(range(outbox.SHARDS), k=4), limit=3, wait=rng.random() < 0.2)
                recompute_dirty(own, force=True)

    with ThreadPoolExecutor(5) as pool:
        workers = [pool.submit(work, seed) for seed in range(3)]
        for receiver in [pool.submit(receive, spans[half::2]) for half in range(2)]:
            receiver.result()
        stop.set()
        for worker in workers:
            worker.result()
    drain(conn)
    assert fingerprint(conn) == expected


class Paused:
    """Lets one worker stop between reading its spans and writing its charges."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_read, self.may_write = threading.Event(), threading.Event()
        self._resolve = attribute.resolve
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []
        monkeypatch.setattr(attribute, "resolve", self._wait)

    def _wait(self, spans, **rules):
        if threading.current_thread() is self._thread and not self.has_read.is_set():
            self.has_read.set()
            assert self.may_write.wait(20)
        return self._resolve(spans, **rules)

    def start(self, action: Callable[[psycopg.Connection], object]) -> None:
        def run() -> None:
            try:
                with open_connection() as own:
                    action(own)
            except BaseException as error:
                self._errors.append(error)
                self.has_read.set()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert self.has_read.wait(20)

    def finish(self) -> list[BaseException]:
        self.may_write.set()
        assert self._thread
        self._thread.join(20)
        return self._errors


def _slow_worker_overtaken(conn, project, paused: Paused) -> tuple[str, ...]:
    """A worker reads a trace; the root arrives and a second worker runs; then the first one writes."""
    store(conn, [call(1)], project_id=project.id)
    drain(conn)
    store(conn, [root(1, 5, feature=None)], project_id=project.id)
    paused.start(lambda own: attribute_shard(own, 1))
    store(conn, [root(1, feature="search")], project_id=project.id)
    attribute_shard(conn, 1)
    assert paused.finish() == []
    return totals(conn, "feature")


def test_a_slow_worker_cannot_overwrite_a_newer_answer(conn, project, monkeypatch):
    assert _slow_worker_overtaken(conn, project, Paused(monkeypatch)) == ("",)  # the newer mark still waits
    drain(conn)
    assert totals(conn, "feature") == ("search",)


SKIP_LOCKED = """
delete from dirty_trace where id in (
    select id from dirty_trace where shard = %(shard)s order by id limit %(limit)s for update skip locked)
returning project_id, day, uuid_send(trace_id), marked_at, reason
"""


def test_with_the_usual_claim_of_a_job_queue_it_would(conn, project, monkeypatch):
    monkeypatch.setattr(outbox, "try_lock_shard", lambda conn, shard: True)
    monkeypatch.setattr(outbox, "_CLAIM", SKIP_LOCKED)
    assert _slow_worker_overtaken(conn, project, Paused(monkeypatch)) == ("",)
    drain(conn)
    assert totals(conn, "feature") == ("",), "stale for good: nothing is marked any more"


def _twins_at_once(conn, project, paused: Paused) -> None:
    """Trace 1 is being resolved while its twin, in another shard, arrives and is worked on by someone else."""
    store(conn, [call(1, response_id="same")], project_id=project.id)
    paused.start(lambda own: attribute_shard(own, 1))
    store(conn, [call(2, response_id="same", parent=0, scope="proxy", user="gateway")], project_id=project.id)
    attribute_shard(conn, 2)
    assert paused.finish() == []


def test_twins_in_two_shards_are_one_charge_whoever_comes_first(conn, project, monkeypatch):
    _twins_at_once(conn, project, Paused(monkeypatch))
    drain(conn)
    assert totals(conn, "count(*)::int, sum(members)::int") == (1, 2)


def test_a_twin_whose_shard_is_busy_is_put_back_with_its_age(conn, project, monkeypatch):
    paused = Paused(monkeypatch)
    store(conn, [call(1, response_id="same")], project_id=project.id)
    paused.start(lambda own: attribute_shard(own, 1))
    store(conn, [call(2, response_id="same", parent=0), call(18, parent=0)], project_id=project.id)
    conn.execute("update dirty_trace set marked_at = '2026-01-01' where shard = 2")
    outcome = attribute_shards(conn, [2], limit=100)
    assert (outcome.marks, outcome.deferred, outcome.busy_shards) == (1, 1, {1, 2})
    assert conn.execute("select marked_at::date::text from dirty_trace where shard = 2").fetchall() == [("2026-01-01",)]
    assert paused.finish() == []
    assert attribute_shards(conn, outcome.busy_shards, limit=100, wait=True).deferred == 0
    assert totals(conn, "count(*)::int") == (2,)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_dies_between_claim_and_commit_loses_nothing(conn, project, monkeypatch):
    paused = Paused(monkeypatch)
    store(conn, [root(1, feature="search"), call(1)], project_id=project.id)
    paused.start(lambda own: attribute_shard(own, 1))
    killed = conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'costapp-jobs' and pid <> pg_backend_pid() and datname = current_database()"
    ).fetchall()
    assert killed == [(True,)]
    assert isinstance(paused.finish()[0], psycopg.OperationalError)
    assert totals(conn, "count(*)::int") == (0,)
    assert outbox.backlog(conn).traces == 1
    drain(conn)
    assert totals(conn, "feature, count(*) over ()::int") == ("search", 1)


def test_a_charge_booked_during_a_recomputation_is_not_lost(conn, project, monkeypatch):
    """The cell's mark was consumed, then a charge committed: it left a mark of its own."""
    from costapp.storage import rollups

    recompute = rollups.recompute_cells
    late = iter([[call(2, parent=0)]])

    def recompute_then_book(own, project_id, *, cells):
        recompute(own, project_id, cells=cells)
        with open_connection() as other:
            for spans in late:
                store(other, spans, project_id=project_id)
                attribute_shard(other, 2)

    store(conn, [call(1, parent=0)], project_id=project.id)
    attribute_shard(conn, 1)
    monkeypatch.setattr(rollups, "recompute_cells", recompute_then_book)
    recompute_dirty(conn)
    assert totals(conn, "sum(requests)::int", "rollup_5m") == (1,)
    drain(conn)
    assert totals(conn, "sum(requests)::int", "rollup_5m") == (2,)


def test_two_recomputations_of_one_project_do_not_meet(conn, project, monkeypatch):
    from costapp.storage import rollups

    store(conn, [call(1, parent=0)], project_id=project.id)
    attribute_shard(conn, 1)
    with open_connection() as other, other.transaction():
        assert rollups.try_lock_project(other, project.id)
        assert recompute_dirty(conn) == 0
    assert recompute_dirty(conn) > 0
    assert totals(conn, "sum(requests)::int", "rollup_5m") == (1,)
