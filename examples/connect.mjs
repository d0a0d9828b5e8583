// Node: OpenTelemetry with an OTLP exporter to Costapp. Import this before your app:
//   npm install @opentelemetry/api @opentelemetry/sdk-node @opentelemetry/instrumentation @opentelemetry/auto-instrumentations-node
//   COSTAPP_KEY=ca_ing_... node --import ./connect.mjs app.mjs
import { register } from "node:module";
import { NodeSDK } from "@opentelemetry/sdk-node";
import { getNodeAutoInstrumentations } from "@opentelemetry/auto-instrumentations-node";

// Without this hook only packages loaded by require() are instrumented, not those loaded by import.
register("@opentelemetry/instrumentation/hook.mjs", import.meta.url);

process.env.OTEL_EXPORTER_OTLP_ENDPOINT ??= "http://127.0.0.1:4318";
process.env.OTEL_EXPORTER_OTLP_HEADERS ??= `authorization=Bearer ${process.env.COSTAPP_KEY}`;
const sdk = new NodeSDK({ instrumentations: [getNodeAutoInstrumentations()] });
sdk.start();
process.once("beforeExit", () => sdk.shutdown());
