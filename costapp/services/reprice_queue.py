"""Re-pricing that people ask for on a page: waits in the database, and a worker carries it out step by step.

A step is one shard of one day; its charges and how far the run came are one transaction. So a worker may stop after
any step, by its time or by a crash, and whichever goes on does so behind it: no step is lost, none is done twice.
"""

import logging
import time
from datetime import date
from typing import Any

import psycopg
from django.db import transaction

from costapp.models import Project, RepriceRun
from costapp.services.audit import Action, record, snapshot
from costapp.services.reprice import Repricer
from costapp.storage import outbox
from costapp.storage import reprice_runs as runs
from costapp.storage.booked import charge_span, days_with_charges
from costapp.storage.connection import require_autocommit
from costapp.storage.rates import load_rate_book, rates_version

log = logging.getLogger(__name__)

#: Runs that one bell looks at; the others are looked at when these are done.
MAX_RUNS = 100


def ask(
    conn: psycopg.Connection[Any], project: Project, first: date, last: date, *, version: int, actor: Any, address: str
) -> RepriceRun | None:
    """Queue a run over those of these (UTC) days that have charges; None if none has. Audited.

    ``version``: of the prices that the difference was shown for. The same asked for twice is one run.
    """
    known = charge_span(conn, project.pk)
    if known is None or known[0] > last or known[1] < first:
        return None
    first, last = max(first, known[0]), min(last, known[1])
    scope = {"project": project, "first_day": first, "last_day": last, "rates_version": version}
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)  # two clicks take turns
        waits = RepriceRun.objects.filter(**scope).exclude(requested_by="").exclude(state=RepriceRun.State.DONE).first()
        if waits:
            return waits
        run = RepriceRun.objects.create(
            **scope, next_day=first, state=RepriceRun.State.REQUESTED, requested_by=str(actor)[:254]
        )
        record(project, actor, Action.CREATED, run, None, snapshot(run), address=address)
        return run


def work_off(conn: psycopg.Connection[Any], *, budget_s: float) -> None:
    """Carry on with what was asked for, for about this long. A run that fails leaves the others their turn."""
    require_autocommit(conn)
    until = time.monotonic() + budget_s
    for run_id, project_id in runs.waiting(conn, limit=MAX_RUNS):
        try:
            with runs.held(conn, project_id) as is_held:
                if is_held:
                    _go_on(conn, run_id, until)
        except psycopg.OperationalError:
            raise
        except Exception:
            log.exception("re-pricing run %s goes on with the next bell", run_id)
        if time.monotonic() >= until:
            return


def _go_on(conn: psycopg.Connection[Any], run_id: int, until: float) -> None:
    """At least one step, however long it takes."""
    run = runs.start(conn, run_id)
    if run is None:
        return
    repricer = Repricer(conn, Project.objects.get(pk=run.project_id), load_rate_book(conn, run.project_id), run.id)
    try:
        for day in days_with_charges(conn, run.project_id, first=run.next_day, last=run.last_day):
            for shard in range(run.next_shard if day == run.next_day else 0, outbox.SHARDS):
                repricer.apply_shard(day, shard)
                if time.monotonic() >= until:
                    return
    except runs.RunGone:
        return  # somebody deleted it: that is how a run is stopped
    runs.finish(conn, run.id, prices_moved=rates_version(conn) != run.rates_version)
