"""Copyable recipes as data: one row per way of sending, filled with the real endpoint and key."""

from typing import NamedTuple

KEY_PLACEHOLDER = "ca_ing_YOUR_KEY"


class Recipe(NamedTuple):
    key: str
    title: str
    hint: str
    template: str

    def text(self, endpoint: str, key: str) -> str:
        return self.template.replace("{endpoint}", endpoint).replace("{key}", key)


ENVIRONMENT = """\
export OTEL_EXPORTER_OTLP_ENDPOINT="{endpoint}"
export OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"
export OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer {key}"
export OTEL_SERVICE_NAME="my-app"
"""

RECIPES = (
    Recipe(
        "env",
        "Any OpenTelemetry app: environment variables",
        "Every OTLP exporter reads these. gRPC works on port 4317 with protocol grpc.",
        ENVIRONMENT,
    ),
    Recipe(
        "python-auto",
        "Python, without touching code",
        "Instruments the official clients it finds.",
        """\
pip install opentelemetry-distro opentelemetry-exporter-otlp-proto-http \\
  opentelemetry-instrumentation-openai-v2
"""
        + ENVIRONMENT
        + """\
opentelemetry-instrument python app.py
""",
    ),
    Recipe(
        "python",
        "Python, with the SDK",
        "Names the feature, user and session once, on the root span: calls below inherit them.",
        """\
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "my-app"}))
exporter = OTLPSpanExporter("{endpoint}/v1/traces", headers={"authorization": "Bearer {key}"})
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)
OpenAIInstrumentor().instrument()

with trace.get_tracer("my-app").start_as_current_span("answer") as span:
    span.set_attribute("app.feature", "support-bot")
    span.set_attribute("user.id", "u-42")
    span.set_attribute("session.id", "s-7")
    ...  # call the model as usual
""",
    ),
    Recipe(
        "js",
        "JavaScript / TypeScript (Node)",
        "As instrumentation.mjs, with the four variables above: node --import ./instrumentation.mjs app.mjs",
        """\
// npm install @opentelemetry/{api,sdk-node,instrumentation,instrumentation-openai}
import { register } from "node:module";
import { NodeSDK } from "@opentelemetry/sdk-node";
import { OpenAIInstrumentation } from "@opentelemetry/instrumentation-openai";

register("@opentelemetry/instrumentation/hook.mjs", import.meta.url); // for packages loaded by import
const sdk = new NodeSDK({ instrumentations: [new OpenAIInstrumentation()] });
sdk.start();
process.once("beforeExit", () => sdk.shutdown());
""",
    ),
    Recipe(
        "vercel",
        "Vercel AI SDK",
        "Set up the SDK as for Node, then switch telemetry on per call.",
        """\
await generateText({
  model,
  prompt,
  experimental_telemetry: {
    isEnabled: true,
    recordInputs: false,
    recordOutputs: false,
    metadata: { feature: "support-bot", userId: "u-42", sessionId: "s-7" },
  },
});
""",
    ),
    Recipe(
        "collector",
        "OpenTelemetry Collector",
        "Keeps your apps pointed at the collector you already run.",
        """\
exporters:
  otlphttp/costapp:
    endpoint: {endpoint}
    headers:
      authorization: Bearer {key}
service:
  pipelines:
    traces:
      exporters: [otlphttp/costapp]
    metrics:
      exporters: [otlphttp/costapp]
    logs:
      exporters: [otlphttp/costapp]
""",
    ),
    Recipe(
        "openllmetry",
        "OpenLLMetry (Traceloop)",
        "",
        """\
export TRACELOOP_BASE_URL="{endpoint}"
export TRACELOOP_HEADERS="authorization=Bearer%20{key}"
export TRACELOOP_TRACE_CONTENT="false"
""",
    ),
    Recipe(
        "openlit",
        "OpenLIT",
        "",
        """\
import openlit
openlit.init(otlp_endpoint="{endpoint}", otlp_headers="authorization=Bearer%20{key}")
""",
    ),
    Recipe(
        "langfuse",
        "Langfuse SDK",
        "It speaks OpenTelemetry: add an exporter beside its own.",
        """\
from langfuse import Langfuse
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor

Langfuse()
exporter = OTLPSpanExporter("{endpoint}/v1/traces", headers={"authorization": "Bearer {key}"})
trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(exporter))
""",
    ),
    Recipe(
        "litellm",
        "LiteLLM",
        "In the environment of the proxy or the app.",
        """\
export OTEL_EXPORTER="otlp_http"
export OTEL_ENDPOINT="{endpoint}/v1/traces"
export OTEL_HEADERS="authorization=Bearer {key}"
# litellm.callbacks = ["otel"], or callbacks: ["otel"] in litellm_settings
""",
    ),
    Recipe(
        "curl",
        "Try it with curl",
        "Sends one model call with 1,200 input and 350 output tokens.",
        """\
curl -sS {endpoint}/v1/traces \\
  -H "authorization: Bearer {key}" -H "content-type: application/json" \\
  -d '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"curl"}}]},
  "scopeSpans":[{"spans":[{"traceId":"'$(openssl rand -hex 16)'","spanId":"'$(openssl rand -hex 8)'",
  "name":"chat gpt-4o-mini","kind":3,
  "startTimeUnixNano":"'$(date +%s)000000000'","endTimeUnixNano":"'$(date +%s)900000000'",
  "attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},
  {"key":"gen_ai.provider.name","value":{"stringValue":"openai"}},
  {"key":"gen_ai.response.model","value":{"stringValue":"gpt-4o-mini"}},
  {"key":"gen_ai.usage.input_tokens","value":{"intValue":"1200"}},
  {"key":"gen_ai.usage.output_tokens","value":{"intValue":"350"}},
  {"key":"app.feature","value":{"stringValue":"first-try"}}]}]}]}]}'
""",
    ),
)


def quick_start(endpoint: str, key: str) -> str:
    return RECIPES[0].text(endpoint, key)
