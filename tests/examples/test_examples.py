"""The examples work as printed: their spans become exactly the calls that the provider served."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from costapp.models import IngestKey, Project
from costapp.services.drain import drain
from costapp.services.import_prices import import_catalogue
from tests import pipeline
from tests.collectors.conftest import Collector, collector, database_url

__all__ = ["collector", "database_url"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLES = Path(__file__).parents[2] / "examples"
Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]


@pytest.fixture
def conn(transactional_db: None) -> Iterator[Connection]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection


@pytest.fixture
def key(conn: Connection) -> str:
    import_catalogue()
    return IngestKey.issue(Project.objects.create(slug="p", name="P"), "test")[1]


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run_example(name: str, collector: Collector, key: str, **environment: str) -> str:
    told = {"COSTAPP_KEY": key, "COSTAPP_URL": f"http://127.0.0.1:{collector.http_port}"}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, env=os.environ | told | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def charged(conn: Connection) -> list[Row]:
    drain(conn)
    query = """
        select model, input_tokens, coalesce(cache_read_tokens, 0), coalesce(cache_write_5m_tokens, 0), output_tokens,
               feature, user_id, session_id
        from charge_full where error is null order by 1, 2, 3, 4, 5, 6, 7, 8
    """
    return conn.execute(query).fetchall()


def test_the_quickstart_is_one_priced_call(conn: Connection, collector: Collector, key: str) -> None:
    assert "sent one call" in run_example("quickstart.py", collector, key)
    assert charged(conn) == [("gpt-4o-mini", 176, 1024, 0, 300, "quickstart", "me", "first-session")]
    cost = conn.execute("select cost_nano from charge").fetchone()
    assert cost == (176 * 150 + 1024 * 75 + 300 * 600,)  # $0.15, $0.075 and $0.60 per million tokens


def test_the_baggage_processor_tells_every_span_whom_it_works_for(
    conn: Connection, collector: Collector, key: str, examples: None
) -> None:
    from baggage_processor import AttributionProcessor, attribution  # type: ignore[import-not-found]

    url = f"http://127.0.0.1:{collector.http_port}/v1/traces"
    provider = TracerProvider()
    provider.add_span_processor(AttributionProcessor())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url, headers={"authorization": f"Bearer {key}"})))
    tracer = provider.get_tracer("test")
    with attribution(feature="support-bot", user="u-1", session="s-1"), tracer.start_as_current_span("handle"):
        call = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
        usage = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5}
        with tracer.start_as_current_span("chat gpt-4o", kind=SpanKind.CLIENT, attributes=call | usage):
            pass
    provider.shutdown()
    assert charged(conn) == [("gpt-4o", 10, 0, 0, 5, "support-bot", "u-1", "s-1")]
    assert conn.execute("select attribution_source from charge").fetchone() == (1,)  # own: copied onto the span itself


def test_real_clients_cost_what_the_provider_served(
    conn: Connection, collector: Collector, key: str, examples: None
) -> None:
    needed = ("openai", "anthropic", "opentelemetry.instrumentation.genai")
    try:
        missing = [name for name in needed if find_spec(name) is None]
    except ModuleNotFoundError:
        missing = list(needed)
    if missing:
        pytest.skip("needs examples/requirements.txt")
    from fake_provider import Server  # type: ignore[import-not-found]

    server = Server(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        run_example("chat_app.py", collector, key, PROVIDER_URL=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    served = sorted(
        (call["model"], call["input"], call["cache_read"], call["cache_write"], call["output"])
        for call in server.provider.ledger
    )
    assert [row[:5] for row in charged(conn)] == served
    assert {(row[5], row[6]) for row in charged(conn)} == {
        ("support-bot", "u-1"), ("support-bot", "u-2"), ("search-answers", "u-3"), ("doc-summary", "u-4"),
    }  # fmt: skip
    unpriced = conn.execute("select count(*) from charge where cost_nano is null").fetchone()
    assert unpriced == (0,)


def test_the_fake_provider_counts_as_the_real_ones_do(examples: None) -> None:
    from fake_provider import Provider, chat_usage, messages_usage

    provider, request = Provider(), {"model": "gpt-4o"}
    prompt = "x" * 8000  # 2,000 tokens
    first = provider.book("messages", request, prompt=prompt, answer="a" * 400)
    assert chat_usage(provider.book("chat", request, prompt=prompt, answer="a" * 400))["prompt_tokens"] == 2000
    second = provider.book("chat", request, prompt=prompt, answer="a" * 400)
    assert messages_usage(first)["cache_creation_input_tokens"] == 1024
    assert messages_usage(first)["input_tokens"] == 976  # beside the cached part
    assert chat_usage(second)["prompt_tokens"] == 2000  # the cached part included
    assert chat_usage(second)["prompt_tokens_details"] == {"cached_tokens": 1024}
    assert [call["output"] for call in provider.ledger] == [100, 100, 100]
