"""Prints the reference part of docs/attributes.md: ``python -m collectors.dialects.reference``."""

import sys

from collectors.dialects import attribution, content, gateways
from collectors.dialects.recogniser import BUILT_IN

#: Canonical field -> (heading, slots of the tables that end up in it). In the order of the page.
FIELDS: dict[str, tuple[str, ...]] = {
    "role (is it a model call?)": ("role",),
    "operation": ("operation",),
    "provider": ("provider_raw",),
    "model requested": ("model_requested", "model_bare"),
    "model responded": ("model_responded",),
    "response id": ("response_id", "request_id", "call_id"),
    "input tokens": ("input", "bare_input", "bare_tool"),
    "output tokens": ("output", "bare_output"),
    "cache read tokens": ("cache_read", "bare_cache_read"),
    "cache write tokens": ("cache_write", "bare_cache_write"),
    "one-hour part of cache writes": ("cache_write_1h",),
    "reasoning tokens": ("reasoning", "bare_reasoning"),
    "audio and image tokens": ("audio_in", "audio_out", "image_in", "image_out"),
    "whether counts overlap": ("usage_shape",),
    "reported cost": ("reported_nano", "bare_cost"),
    "streamed": ("stream",),
    "answered by the app's own cache": ("app_cached",),
    "batch processing": ("batch",),
    "units (images, seconds, characters, searches) of calls not billed by token": ("units", "unit"),
    "time to first token": ("ttft_us", "ttft_unsure_us", "bare_ttft_us"),
    "duration (events)": ("bare_duration_us",),
    "result of an earlier span": ("late_result",),
    "error": ("error", "http_status", "bare_error", "bare_status", "status"),
    "resends inside the span": ("resends", "bare_attempt"),
    "finish reason": ("finish_reason", "bare_finish"),
    "service tier": ("service_tier", "bare_speed"),
    "region": ("region",),
    "time in the queue, prefill and decode of the server": ("queue_us", "prefill_us", "decode_us"),
    "which server (only beside those times)": ("instance",),
    "host": ("host", "port"),
    "service": ("service",),
    "prompt name": ("prompt_name",),
    "prompt version of the call": ("prompt_version",),
    "event name and identity": ("event_name", "event_kind", "event_sequence", "event_timestamp", "prompt_id"),
    "Codex session (a UUID; elsewhere the thread of the operating system)": ("os_or_codex_thread",),
}
ATTRIBUTION = {
    "feature": "feature", "user": "user", "session": "session", "team": "team", "environment": "environment",
    "variant": "variant", "prompt version": "prompt_version", "feature, if nothing names it": "weak_feature",
    "session, if nothing names it": "weak_session",
}  # fmt: skip


def lines() -> list[str]:
    """The reference, as Markdown lines."""
    return [*_attribution(), *_patterns(), *_fields(), *_content()]


def _attribution() -> list[str]:
    rows = [
        "### Whom a call worked for",
        "",
        "Names are tried in this order.",
        "",
        "| field | names |",
        "| --- | --- |",
    ]
    return [*rows, *(_row(field, attribution.NAMES[slot]) for field, slot in ATTRIBUTION.items()), ""]


def _patterns() -> list[str]:
    words = ", ".join(f"`{word}` ({field})" for word, field in attribution.WORDS.items())
    return [
        "### Metadata of the app", "",
        "Below these prefixes, and as keys of these documents (JSON, or a Python literal) and tags (`feature:search`), "
        "the last part of the name says what the value is:", "",
        "| where | names |", "| --- | --- |",
        _row("prefixes", [f"{prefix}*" for prefix in attribution.PREFIXES]),
        _row("documents", attribution.DOCUMENTS), _row("tags", attribution.TAGS),
        _row("anywhere, as the last part", [f"*.{word}" for word in attribution.SUFFIXES]), "",
        f"Words: {words}.", "",
    ]  # fmt: skip


def _fields() -> list[str]:
    rows = ["### The model call", "", "| field | names |", "| --- | --- |"]
    for heading, slots in FIELDS.items():
        names = [name for name, rule in BUILT_IN.items() if set(rule.slots) & set(slots) and name not in _SAID]
        rows.append(_row(heading, names))
    rows.append(_row("the provider's own response (LiteLLM)", gateways.LITELLM_RAW))
    return [*rows, ""]


def _content() -> list[str]:
    return [
        "### Text that is not stored", "", "| what | names |", "| --- | --- |",
        _row("prompt: size and keyed hash are kept", [*content.PROMPTS, "gen_ai.prompt.N.content",
                                                      "llm.input_messages.N.message.content"]),
        _row("answer: size is kept", [*content.ANSWERS, "gen_ai.completion.N.content",
                                      "llm.output_messages.N.message.content"]),
        _row("dropped", sorted(content.OTHERS)), "",
    ]  # fmt: skip


def _row(heading: str, names: object) -> str:
    return f"| {heading} | {', '.join(f'`{name}`' for name in names)} |"  # type: ignore[attr-defined]


_SAID = frozenset(name for names in attribution.NAMES.values() for name in names) | {
    *attribution.DOCUMENTS, *attribution.TAGS,
}  # fmt: skip

if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()))
