"""How costapp/storage/facts_v1.zdict was made: a dictionary of what the facts of model calls have in common.

    python -m benchmarks.facts_dictionary OUT

Stored rows depend on the dictionary, so a shipped one is never changed; this makes a candidate for the next
version. Samples: the recordings of real clients in tests/data, and invented calls over the known scopes,
providers and models. The traces of the benchmarks are not among them, so that these measure something unseen.
"""

import argparse
import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import zstandard
from genai_prices import data as catalogue

from collectors.batch import Batch
from collectors.decode import make_decoder
from collectors.dialects import Recogniser
from collectors.settings import Settings
from costapp.core.values import SpanFacts
from costapp.storage.facts import PLAIN_BYTES, encode_plain
from costapp.storage.spans import facts_of

CAPTURES = Path(__file__).resolve().parents[1] / "tests/data/captures"
SIZE = 16_384
INVENTED = 6_000
SCOPES = [
    ("opentelemetry.instrumentation.openai_v2", "2.4b0"), ("opentelemetry.instrumentation.openai", "0.62.0"),
    ("opentelemetry.instrumentation.anthropic", "0.62.0"), ("opentelemetry.instrumentation.genai.openai", "1.3b0"),
    ("opentelemetry.instrumentation.genai.anthropic", "1.3b0"), ("opentelemetry.instrumentation.bedrock", "0.62.0"),
    ("opentelemetry.instrumentation.google_genai", "1.3b0"), ("opentelemetry.instrumentation.langchain", "0.62.0"),
    ("opentelemetry.instrumentation.botocore.bedrock-runtime", "0.66b2"),
    ("openinference.instrumentation.openai", "0.1.41"), ("openinference.instrumentation.anthropic", "0.1.20"),
    ("openinference.instrumentation.langchain", "0.1.55"), ("openlit.instrumentation.openai", "1.45.0"),
    ("openlit.instrumentation.anthropic", "1.45.0"), ("@traceloop/instrumentation-openai", "0.22.0"),
    ("@arizeai/openinference-instrumentation-openai", "4.0.0"), ("com.anthropic.sdk.python", "2.3.0"),
    ("pydantic-ai", "2.1.0"), ("logfire.openai", "4.18.0"), ("langfuse-sdk", "4.2.0"), ("litellm", ""), ("ai", ""),
    ("gen_ai", ""), ("strands.telemetry.tracer", ""), ("gcp.vertex.agent", "1.20.0"), ("mlflow", ""),
    ("Microsoft.SemanticKernel", ""), ("spring-ai", ""), ("com.anthropic.claude_code.events", "2.0.0"),
    ("gemini-cli", "0.20.0"), ("codex_otel", ""),
]  # fmt: skip
SERVICES = ["api", "web", "chat-service", "assistant", "backend", "worker", "agent", "gateway", "search", "rag-service"]
FEATURES = ["chat", "search", "summary", "support", "assistant", "code-review", "classification", "translation", "rag"]
IDS = ["chatcmpl-{:024x}", "resp_{:048x}", "msg_01{:022x}", "{:032x}", "gen-{:020x}", "chatcmpl-{:029x}"]
ENVIRONMENTS = ["production", "prod", "staging", "development", "test", None]
HOSTS = ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "localhost:8000", None]


def recorded() -> Iterator[bytes]:
    """Facts of the recorded clients."""
    for path in sorted(CAPTURES.glob("*.bin")):
        body = path.read_bytes()
        body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        is_json = body[:1] == b"{"
        signal = next((name for name in ("logs", "metrics", "scores") if f"-{name}." in path.name), "traces")
        if signal == "traces" or (signal == "logs" and is_json):
            yield from decoded(body, signal, is_json=is_json)


def decoded(body: bytes, signal: str, *, is_json: bool) -> Iterator[bytes]:
    batch = Batch(1, 1, signal, "http", 0)
    decoder = make_decoder(Recogniser({}, hash_secret=bytes(32)), Settings(), is_json=is_json)
    for _ in decoder.decode(body, batch):
        pass
    yield from (encode_plain(facts_of(row)) for row in batch.rows)


def invented() -> Iterator[bytes]:
    """Facts of calls of many clients to many models."""
    dice = random.Random(1)
    models = [(provider.id, model.id) for provider in catalogue.providers for model in provider.models]
    for _ in range(INVENTED):
        provider, model = dice.choice(models)
        yield encode_plain(_call(dice, provider, model))


def _call(dice: random.Random, provider: str, model: str) -> SpanFacts:
    scope, version = dice.choice(SCOPES)
    operation = dice.choice(["chat", "chat", "chat", "text_completion", "embeddings", "generate_content"])
    return SpanFacts(
        name=dice.choice([f"{operation} {model}", f"{operation} {model}", "ChatCompletion", "openai.chat"]),
        service=dice.choice(SERVICES), duration_us=dice.randint(1_000, 60_000_000), kind=dice.choice([1, 3, 3]),
        role=1, environment=dice.choice(ENVIRONMENTS), feature=dice.choice([*FEATURES, None]),
        user=dice.choice([f"user-{dice.randint(1, 99999)}", f"u_{dice.getrandbits(48):012x}", None]),
        session=dice.choice([f"{dice.getrandbits(128):032x}", f"session-{dice.getrandbits(32):08x}", None]),
        scope=scope, scope_version=version or None, operation=operation, provider_raw=provider,
        model_requested=model, model_responded=dice.choice([model, model, None]),
        response_id=dice.choice(IDS).format(dice.getrandbits(88)), input=dice.randint(1, 20_000),
        output=dice.randint(0, 4_000), cache_read=dice.choice([None, 0, dice.randint(1, 9_000)]),
        reasoning=dice.choice([None, None, dice.randint(1, 900)]), host=dice.choice(HOSTS),
        finish_reason=dice.choice(["stop", "stop", "tool_calls", "end_turn", "length", "tool_use", None]),
        prompt_hash=dice.choice([None, dice.getrandbits(63)]),
        prompt_chars=dice.choice([None, dice.randint(10, 9_000)]),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    samples = [sample for sample in [*list(recorded()) * 3, *invented()] if len(sample) > PLAIN_BYTES]
    dictionary = zstandard.train_dictionary(SIZE, samples, level=3)
    options.out.write_bytes(dictionary.as_bytes())
    print(f"{len(samples)} samples, {len(dictionary)} bytes")


if __name__ == "__main__":
    main()
