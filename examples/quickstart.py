"""The smallest app that Costapp understands: OpenTelemetry's SDK and one span per model call.

pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http
COSTAPP_KEY=ca_ing_... python examples/quickstart.py
"""

import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

URL = os.environ.get("COSTAPP_URL", "http://127.0.0.1:4318")
exporter = OTLPSpanExporter(f"{URL}/v1/traces", headers={"authorization": f"Bearer {os.environ['COSTAPP_KEY']}"})
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)

with trace.get_tracer("quickstart").start_as_current_span("chat gpt-4o-mini", kind=trace.SpanKind.CLIENT) as span:
    span.set_attributes({
        "app.feature": "quickstart",
        "user.id": "me",
        "session.id": "first-session",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 1200,
        "gen_ai.usage.cache_read.input_tokens": 1024,  # inside the input
        "gen_ai.usage.output_tokens": 300,
    })  # fmt: skip
provider.shutdown()
print("sent one call: 176 tokens uncached, 1,024 from the cache, 300 out")
