"""A small app with real OpenAI and Anthropic clients, instrumented by OpenTelemetry, sending to Costapp.

    pip install -r examples/requirements.txt
    python examples/fake_provider.py &                      # or use the real providers: unset PROVIDER_URL
    COSTAPP_KEY=ca_ing_... PROVIDER_URL=http://127.0.0.1:8099 python examples/chat_app.py

COSTAPP_URL is the OTLP/HTTP address (http://127.0.0.1:4318). Prints how many calls each provider served.
"""

import os
import sys
from pathlib import Path

import anthropic
import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

sys.path.insert(0, str(Path(__file__).parent))
from baggage_processor import AttributionProcessor, attribution

HANDBOOK = "Larkfield ships within two days. Returns are free for sixty days. " * 120  # long enough to be cached


def connect() -> TracerProvider:
    """The lines that an app adds: where to send, under which key, and whom each span works for."""
    exporter = OTLPSpanExporter(
        endpoint=os.environ.get("COSTAPP_URL", "http://127.0.0.1:4318") + "/v1/traces",
        headers={"authorization": f"Bearer {os.environ['COSTAPP_KEY']}"},
    )
    provider = TracerProvider(resource=Resource({"service.name": "chat-app", "deployment.environment.name": "example"}))
    provider.add_span_processor(AttributionProcessor())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument()
    AnthropicInstrumentor().instrument()
    return provider


def ask_openai(client: openai.OpenAI) -> int:
    calls = 0
    for user, question in (("u-1", "Where is my parcel?"), ("u-2", "Can I return my boots?")):
        with attribution(feature="support-bot", user=user, session=f"s-{user}"):
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "system", "content": HANDBOOK}, {"role": "user", "content": question}],
            )
            stream = client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": question}],
                stream=True,
                stream_options={"include_usage": True},  # without it, nobody learns what a stream cost
            )
            for _ in stream:
                pass
            calls += 2
    with attribution(feature="search-answers", user="u-3", session="s-u-3"):
        client.embeddings.create(model="text-embedding-3-small", input="waterproof jacket for children")
    return calls + 1


def ask_anthropic(client: anthropic.Anthropic) -> int:
    calls = 2  # the second one finds the handbook in the provider's cache
    for _ in range(calls):
        with attribution(feature="doc-summary", user="u-4", session="s-u-4"):
            client.messages.create(
                model="claude-haiku-4-5",
                max_tokens=200,
                system=HANDBOOK,
                messages=[{"role": "user", "content": "Sum up."}],
            )
    return calls


def main() -> None:
    provider = connect()
    url = os.environ.get("PROVIDER_URL")
    openai_client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused") if url else openai.OpenAI()
    anthropic_client = anthropic.Anthropic(base_url=url, api_key="unused") if url else anthropic.Anthropic()
    counts = {"openai": ask_openai(openai_client), "anthropic": ask_anthropic(anthropic_client)}
    provider.shutdown()  # sends what is still in the batch
    print(", ".join(f"{name}: {count} calls" for name, count in counts.items()))


if __name__ == "__main__":
    main()
