"""What a reason in the ingest log means and what to do about it, in words."""

ADVICE: dict[str, str] = {
    "bad_trace_id": "A trace id must be 16 bytes that are not all zero. Use the SDK's own ids.",
    "bad_span_id": "A span id must be 8 bytes that are not all zero. Use the SDK's own ids.",
    "time_out_of_range": "The span's time lies too far in the past or in the future: check the sender's clock.",
    "time_invalid": "The span ends before it begins, or has no start: check the sender's clock.",
    "usage_invalid": "A token count was negative, not a number, or absurdly large. The call is kept without usage.",
    "truncated": "A value was longer than its limit and was cut. Nothing to do unless it is a name you filter by.",
    "content_dropped": "Prompt or completion text was on the wire and was not stored. This is the default, for privacy.",
    "conflict": "The same span arrived again with other content. The first one counts.",
    "too_many_spans": "A request held more spans than the limit. Make the exporter's batches smaller.",
    "too_large": "A value or a span was larger than its limit.",
}
OTHERWISE = "See docs/operations.md for the limits and their settings."


def advice(reason: str) -> str:
    return ADVICE.get(reason.replace("-", "_").lower(), OTHERWISE)
