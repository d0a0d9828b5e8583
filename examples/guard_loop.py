"""An agent loop that stops itself: before each call it asks Costapp's guard, and goes on if that stays silent.

pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http
COSTAPP_KEY=ca_ing_... python examples/guard_loop.py
Needs a guardrail that blocks, for example 20 calls per session within 5 minutes (docs/guardrails.md).
"""

import json
import os
import time
import urllib.parse
import urllib.request

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

URL, KEY = os.environ.get("COSTAPP_URL", "http://127.0.0.1:4318"), os.environ["COSTAPP_KEY"]
SESSION, ROUNDS = os.environ.get("SESSION", f"loop-{time.time_ns():x}"), int(os.environ.get("ROUNDS", "2000"))


class Guard:
    """Keeps an answer for two seconds. Whatever goes wrong means: go on."""

    def __init__(self, **about: str) -> None:
        self.url, self.ask_at, self.said = f"{URL}/api/v1/guard?{urllib.parse.urlencode(about)}", 0.0, {}

    def blocks(self) -> bool:
        if time.monotonic() >= self.ask_at:
            try:
                question = urllib.request.Request(self.url, headers={"x-api-key": KEY})
                with urllib.request.urlopen(question, timeout=0.25) as answer:
                    self.said = json.load(answer)
            except (OSError, ValueError):
                self.said = {}
            self.ask_at = time.monotonic() + 2
        return self.said.get("decision") == "block"


def call_model() -> None:
    """Stands for a call of a provider: makes the span that an instrumentation would."""
    with tracer.start_as_current_span("chat gpt-4o-mini", kind=trace.SpanKind.CLIENT) as span:
        span.set_attributes({
            "app.feature": "guard-loop", "session.id": SESSION, "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 300,
        })  # fmt: skip
        time.sleep(0.05)


provider = TracerProvider()
exporter = OTLPSpanExporter(f"{URL}/v1/traces", headers={"authorization": f"Bearer {KEY}"})
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
tracer = provider.get_tracer("guard-loop")

guard = Guard(feature="guard-loop", session=SESSION)
calls = 0
while calls < ROUNDS and not guard.blocks():  # a loop that would never end by itself
    call_model()
    calls += 1
provider.shutdown()
print(f"stopped after {calls} calls: {guard.said.get('reason', 'nobody objected')}" if guard.blocks() else
      f"made all {calls} calls, nobody objected")  # fmt: skip
