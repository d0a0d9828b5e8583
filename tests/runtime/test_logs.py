"""The log stays readable during an outage."""

import logging
import sys

import psycopg

from costapp.logs import QUIET_S, OneLinePerOutage


def record_of(error):
    try:
        raise error
    except Exception:
        return logging.LogRecord("celery", logging.ERROR, __file__, 1, "Task %s raised", ("x",), sys.exc_info())


def test_an_outage_is_one_line_without_a_stack_trace():
    record = record_of(psycopg.OperationalError("connection refused\n\tIs the server running?"))
    assert OneLinePerOutage().filter(record)
    expected = "The database cannot be used (connection refused). This is tried again by itself."
    assert record.getMessage() == expected
    assert logging.Formatter().format(record) == expected


def test_further_attempts_are_silent_for_a_while():
    now = [100.0]
    outage = OneLinePerOutage(clock=lambda: now[0])
    shown = []
    for _ in range(25):
        shown.append(outage.filter(record_of(psycopg.OperationalError("away"))))
        now[0] += 1
    assert [second for second, was_shown in enumerate(shown) if was_shown] == [0, 10, 20]
    assert QUIET_S == 10


def test_a_defect_keeps_its_stack_trace():
    record = record_of(ValueError("bug"))
    assert OneLinePerOutage().filter(record)
    assert "Traceback" in logging.Formatter().format(record)
