"""The Celery apps, and when which bell rings. What a bell does is in ``costapp.tasks``.

``celery -A costapp.celery worker`` and ``celery -A costapp.celery:clock beat``. The broker is only a
clock: work is found in the database, so a message that is lost, late or repeated harms nothing.
"""

import gc
import os
from typing import Any, NamedTuple

from celery import Celery
from celery.schedules import crontab, schedule
from celery.signals import worker_before_create_process

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "costapp.settings")


class Bell(NamedTuple):
    """One line of the schedule."""

    task: str
    when: schedule | crontab
    expires_s: int  # a bell nobody heard in time is dropped: the next one rings anyway
    argument: int | None = None


def every(seconds: float) -> schedule:
    return schedule(run_every=seconds)


#: Marked traces are attributed by this many bells side by side, each with its own shards.
ATTRIBUTE_GROUPS = 2

SCHEDULE = {
    "attribute, even shards": Bell("costapp.attribute", every(1), 2, argument=0),
    "attribute, odd shards": Bell("costapp.attribute", every(1), 2, argument=1),
    "rollup": Bell("costapp.rollup", every(2), 4),
    "re-price history": Bell("costapp.reprice", every(3), 6),
    "GPU hours": Bell("costapp.gpu_hours", every(30), 60),
    "notify": Bell("costapp.notify", every(2), 4),
    "digests": Bell("costapp.digests", every(300), 300),
    "budgets": Bell("costapp.budgets", every(3), 6),
    "judge guardrails": Bell("costapp.judge_guardrails", every(2), 4),
    "alert rules": Bell("costapp.evaluate_rules", every(60), 55),
    "anomalies": Bell("costapp.detect_anomalies", every(60), 55),
    "compact ingest log": Bell("costapp.compact_ingest_log", crontab(minute="7"), 1800),
    "partitions": Bell("costapp.partitions", crontab(hour="*/6", minute="13"), 3600),
    "retention": Bell("costapp.retention", crontab(hour="3", minute="23"), 3600),
    "verify ledger": Bell("costapp.verify_ledger", crontab(hour="4", minute="37"), 3600),
}

app = Celery("costapp")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["costapp"])


@worker_before_create_process.connect
def share_memory(**_: Any) -> None:
    """What was imported stays shared with the worker processes: their garbage collections need not write to it."""
    gc.collect()
    gc.freeze()


#: Rings the bells. It needs no task and no Django, which saves its process half the memory.
clock = Celery("costapp", fixups=[])
clock.config_from_object("costapp.settings", namespace="CELERY")
clock.conf.beat_schedule = {
    name: {
        "task": bell.task,
        "schedule": bell.when,
        "args": () if bell.argument is None else (bell.argument,),
        "options": {"expires": bell.expires_s},
    }
    for name, bell in SCHEDULE.items()
}
