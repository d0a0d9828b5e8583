"""examples/guard_loop.py stops itself: real spans, a real collector, the real jobs; and goes on when nobody answers."""

import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from costapp.models import IngestKey
from costapp.services.drain import drain
from costapp.services.guardrails.judge import judge
from tests import pipeline
from tests.collectors.conftest import collector, database_url, free_port
from tests.guardrails.conftest import guardrail, rows

__all__ = ["collector", "database_url"]  # fixtures

EXAMPLE = Path(__file__).parents[2] / "examples/guard_loop.py"


def run_loop(url: str, key: str, **environment: str) -> str:
    told = {"COSTAPP_URL": url, "COSTAPP_KEY": key, "SESSION": "loop-1", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    command = [sys.executable, str(EXAMPLE)]
    done = subprocess.run(command, env=os.environ | told | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Jobs(threading.Thread):
    """The worker's bells, one after the other, until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with pipeline.open_connection() as conn:
                while not self.stop.wait(0.2):
                    drain(conn)
                    judge(conn, now=datetime.now(UTC))
        except Exception as error:
            self.error = error


def test_a_loop_that_would_never_end_stops_itself_and_the_alert_is_there(
    conn: Any, project: Any, collector: Any
) -> None:
    guardrail(project, action="block", limit_value=20)
    key = IngestKey.issue(project, "loop")[1]
    jobs = Jobs()
    jobs.start()
    try:
        said = run_loop(f"http://127.0.0.1:{collector.http_port}", key)
    finally:
        jobs.stop.set()
        jobs.join()
    assert jobs.error is None
    stopped = re.search(r"stopped after (\d+) calls: Session loop-1 made \d+ calls within 5 minutes", said)
    assert stopped, said
    assert 20 <= int(stopped[1]) < 2000
    assert rows(conn, "select count(*)::int from alert") == [1]


def test_it_goes_on_when_the_guard_cannot_be_reached(project: Any) -> None:
    said = run_loop(f"http://127.0.0.1:{free_port()}", "ca_ing_x", ROUNDS="5")
    assert "made all 5 calls, nobody objected" in said
