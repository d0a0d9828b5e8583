// Node: OpenTelemetry with an OTLP exporter to Costapp. Import this before your app:
//   npm install @opentelemetry/sdk-node @opentelemetry/exporter-trace-otlp-proto @opentelemetry/auto-instrumentations-node
//   COSTAPP_KEY=ca_ing_... node --import ./connect.mjs app.mjs
import { NodeSDK } from "@opentelemetry/sdk-node";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { getNodeAutoInstrumentations } from "@opentelemetry/auto-instrumentations-node";

const url = process.env.COSTAPP_URL ?? "http://127.0.0.1:4318";
const headers = { authorization: `Bearer ${process.env.COSTAPP_KEY}` };
const sdk = new NodeSDK({
  traceExporter: new OTLPTraceExporter({ url: `${url}/v1/traces`, headers }),
  instrumentations: [getNodeAutoInstrumentations()],
});
sdk.start();
process.once("beforeExit", () => sdk.shutdown());
