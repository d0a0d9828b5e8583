"""What a reason in the ingest log means and what to do about it, in words."""

ADVICE: dict[str, str] = {
    "invalid_trace_id": "A trace id is 16 bytes that are not all zero. Use the ids of an OpenTelemetry SDK.",
    "invalid_span_id": "A span id is 8 bytes that are not all zero. Use the ids of an OpenTelemetry SDK.",
    "invalid_parent_id": "The parent id had a wrong length: the span was kept as a root.",
    "undecodable": "The body is not OTLP in the encoding that its Content-Type names. Check the exporter's protocol.",
    "attribute_undecodable": "An attribute's value could not be read and was left out; the span was kept.",
    "attributes_cut": "A span had more attributes than the limit; the rest was left out.",
    "values_cut": "A value was longer than its limit and was cut.",
    "keys_cut": "An attribute name was longer than its limit and was left out.",
    "names_cut": "A span name was longer than its limit and was cut.",
    "events_cut": "A span had more events than the limit; the rest was left out.",
    "nesting_cut": "A value was nested more deeply than the limit and was cut.",
    "time_out_of_range": "The span's time lies far in the past or future. Check the sender's clock.",
    "too_many_items": "A request held more spans than the limit. Make the exporter's batches smaller.",
    "span_too_large": "A span was larger than the limit even without its text. Send fewer or shorter attributes.",
    "too_large": "A request was larger than the limit. Lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE.",
    "conflict": "A span arrived again with other content. The first copy counts.",
    "arrived_late": "The span started more than an hour before it arrived. Nothing is lost: its hour was summed again.",
    "unstorable": "The database refused a value of this request. Please report it.",
    "body_timeout": "The body took too long to arrive. Check the network between app and collector.",
    "client_gone": "The app closed the connection before the answer. It will send again.",
    "queue_full": "More arrived than could be written. The app waits and sends again; add capacity if it lasts.",
    "memory_full": "Too many large requests at once. The app waits and sends again; make batches smaller.",
    "disk_full": "The disk of the database is nearly full. Free space, or shorten the retention.",
    "database_away": "The database was not reachable. The app waited and sent again.",
    "write_timeout": "The database was too slow to answer in time. The app sends again.",
    "commit_timeout": "The database was too slow to answer in time. The app sends again.",
    "stopping": "The collector was being restarted. The app sends again.",
    "wrong_content_type": "Content-Type must be application/x-protobuf or application/json.",
    "wrong_encoding": "Content-Encoding must be gzip, deflate, zstd or identity.",
    "usage_invalid": "A token count was negative, not a number or absurdly large. The call is kept without usage.",
    "content_dropped": "Prompt or completion text was on the wire and was not stored. That is the default.",
}
OTHERWISE = "See the list of limits in the documentation of the collectors."


def advice(reason: str) -> str:
    return ADVICE.get(reason, OTHERWISE)
