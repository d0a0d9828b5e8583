"""Settings of the collectors, one field each, read from the environment. docs/collectors.md lists them (tested)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from costapp.core.targets import read_allowed

MIB = 1024 * 1024


class SettingError(Exception):
    """An environment variable cannot be used; the message is one sentence for the person who set it."""


def _setting(env: str, default: int | str, meaning: str, *, counter: str = "", minimum: int = 0) -> Any:
    return field(default=default, metadata={"env": env, "meaning": meaning, "counter": counter, "minimum": minimum})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`counter` in the metadata names the reason under which a limit that bites is counted."""

    database_url: str = _setting("DATABASE_URL", "postgresql:///costapp", "PostgreSQL to store into.")
    bind: str = _setting("COSTAPP_BIND", "127.0.0.1", "Address to listen on.")
    http_port: int = _setting("COSTAPP_OTLP_HTTP_PORT", 4318, "Port of OTLP/HTTP; 0 = off.")
    grpc_port: int = _setting("COSTAPP_OTLP_GRPC_PORT", 4317, "Port of OTLP/gRPC; 0 = off.")
    processes: int = _setting("COSTAPP_COLLECTOR_PROCESSES", 1, "Collector processes sharing the ports.", minimum=1)
    writers: int = _setting(
        "COSTAPP_COLLECTOR_WRITERS", 2, "Database connections per process that write at the same time.", minimum=1
    )
    body_bytes: int = _setting(
        "COSTAPP_MAX_BODY_BYTES", 64 * MIB, "Largest request, compressed or not, also after decompression (413).",
        counter="too_large", minimum=1024,
    )  # fmt: skip
    memory_bytes: int = _setting(
        "COSTAPP_MAX_MEMORY_BYTES", 256 * MIB, "Sum of the bodies being handled at one time per process (503).",
        counter="memory_full", minimum=1024,
    )  # fmt: skip
    queue_spans: int = _setting(
        "COSTAPP_MAX_QUEUE_SPANS", 50_000, "Spans waiting for their commit per process (503).",
        counter="queue_full", minimum=1,
    )  # fmt: skip
    batch_spans: int = _setting(
        "COSTAPP_MAX_BATCH_SPANS", 8_192, "Spans per transaction; requests beyond wait for the next.", minimum=1
    )
    spans: int = _setting(
        "COSTAPP_MAX_SPANS_PER_REQUEST", 50_000, "Spans, log records or data points read per request.",
        counter="too_many_items", minimum=1,
    )  # fmt: skip
    attributes: int = _setting(
        "COSTAPP_MAX_ATTRIBUTES", 256, "Attributes read per span, record, point or resource.",
        counter="attributes_cut",
    )  # fmt: skip
    events: int = _setting("COSTAPP_MAX_EVENTS", 128, "Events read per span.", counter="events_cut")
    key_bytes: int = _setting("COSTAPP_MAX_KEY_BYTES", 256, "Longest attribute key; longer ones are ignored.",
                              counter="keys_cut")  # fmt: skip
    value_chars: int = _setting(
        "COSTAPP_MAX_VALUE_CHARS", 262_144, "Longest attribute value read, in bytes; the rest is cut.",
        counter="values_cut", minimum=64,
    )  # fmt: skip
    name_chars: int = _setting("COSTAPP_MAX_NAME_CHARS", 256, "Longest span name.", counter="names_cut", minimum=1)
    facts_bytes: int = _setting(
        "COSTAPP_MAX_FACTS_BYTES", 262_144, "Largest stored document of one span; a larger span is rejected.",
        counter="span_too_large", minimum=1024,
    )  # fmt: skip
    nesting: int = _setting("COSTAPP_MAX_NESTING", 32, "Deepest nesting of an attribute value.", counter="nesting_cut",
                            minimum=1)  # fmt: skip
    header_seconds: int = _setting(
        "COSTAPP_HEADER_TIMEOUT", 10, "Seconds to send the request head; idle connections are closed then.", minimum=1
    )
    body_seconds: int = _setting("COSTAPP_BODY_TIMEOUT", 30, "Seconds to send the request body (408).",
                                 counter="body_timeout", minimum=1)  # fmt: skip
    write_seconds: int = _setting("COSTAPP_INGEST_STATEMENT_TIMEOUT", 5, "Seconds one statement may take.", minimum=1)
    answer_seconds: int = _setting(
        "COSTAPP_ANSWER_TIMEOUT", 10, "Seconds a request waits for its commit before it is answered 503.",
        counter="commit_timeout", minimum=1,
    )  # fmt: skip
    shutdown_seconds: int = _setting("COSTAPP_SHUTDOWN_TIMEOUT", 10, "Seconds to finish requests when stopped.")
    key_cache_seconds: int = _setting(
        "COSTAPP_KEY_CACHE_SECONDS", 15, "How long a key is believed without asking the database; at most 30."
    )
    auth_failures_per_minute: int = _setting(
        "COSTAPP_AUTH_FAILURES_PER_MINUTE", 300, "Wrong keys per client address and minute (429); 0 = no limit.",
        counter="auth_failures",
    )  # fmt: skip
    spans_per_second: int = _setting(
        "COSTAPP_KEY_SPANS_PER_SECOND", 0, "Spans per second and key, ten seconds' worth at once (429); 0 = no limit.",
        counter="rate_limited",
    )  # fmt: skip
    bytes_per_second: int = _setting(
        "COSTAPP_KEY_BYTES_PER_SECOND", 0, "Bytes per second and key, ten seconds' worth at once (429); 0 = no limit.",
        counter="rate_limited",
    )  # fmt: skip
    guard_per_second: int = _setting(
        "COSTAPP_GUARD_PER_SECOND", 200, "Questions to the guard per second and key, ten seconds' worth at once (429);"
        " 0 = no limit.", counter="guard_rate_limited",
    )  # fmt: skip
    guard_max_age: int = _setting("COSTAPP_GUARD_MAX_AGE", 2, "Seconds for which an app may keep the guard's answer.")
    guard_stale_seconds: int = _setting(
        "COSTAPP_GUARD_STALE_SECONDS", 15,
        "How old what the guard knows may become while the database is away; then its answer is 'unknown'.", minimum=1,
    )  # fmt: skip
    outbox_traces: int = _setting(
        "COSTAPP_MAX_DIRTY_TRACES", 2_000_000, "Traces waiting to be attributed (503); 0 = no limit.",
        counter="outbox_full",
    )  # fmt: skip
    disk_path: str = _setting("COSTAPP_DISK_PATH", "", "Folder on the database's disk, to refuse before it is full.")
    disk_percent: int = _setting("COSTAPP_MAX_DISK_PERCENT", 95, "Use of that disk from which on requests get 503.",
                                 counter="disk_full")  # fmt: skip
    retention_days: int = _setting("COSTAPP_KEEP_SPANS_DAYS", 30, "Spans that started before are stored, but flagged.",
                                   counter="time_out_of_range", minimum=1)  # fmt: skip
    scrape: int = _setting("COSTAPP_SCRAPE", 1, "1 = scrape the targets listed in the admin; 0 = never.")
    scrape_allow: str = _setting(
        "COSTAPP_SCRAPE_ALLOW",
        "",
        "Networks and ports that may be scraped: `10.20.0.0/16:9400`; none = nothing.",
    )
    scrape_files: str = _setting("COSTAPP_SCRAPE_FILES", "", "Folder of the files that list targets (file_sd).")
    scrape_threads: int = _setting("COSTAPP_SCRAPE_THREADS", 8, "Scrapes at one time.", minimum=1)
    scrape_bytes: int = _setting(
        "COSTAPP_SCRAPE_MAX_BYTES", 16 * MIB, "Largest answer of an endpoint, compressed or not.",
        counter="scrape_failed", minimum=1024,
    )  # fmt: skip
    scrape_lines: int = _setting(
        "COSTAPP_SCRAPE_MAX_SAMPLES", 200_000, "Series in one answer.", counter="scrape_failed", minimum=1
    )
    scrape_endpoints: int = _setting(
        "COSTAPP_SCRAPE_MAX_ENDPOINTS", 1_000, "Endpoints of one target; a file or name with more is not scraped.",
        counter="scrape_failed", minimum=1,
    )  # fmt: skip
    field_keys: str = _setting("COSTAPP_FIELD_KEYS", "", "Keys that open the secrets of scrape targets.")


def load(environ: Mapping[str, str] | None = None) -> Settings:
    environ = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    for item in fields(Settings):
        text = _text(environ, item.metadata["env"])
        if text:
            given[item.name] = text if item.type is str else _integer(item.metadata, text)
    settings = Settings(**given)
    if settings.key_cache_seconds > 30:
        raise SettingError("COSTAPP_KEY_CACHE_SECONDS must be at most 30, so that revoking a key works at once.")
    if settings.memory_bytes < 2 * settings.body_bytes:  # a body before and after decompression
        raise SettingError("COSTAPP_MAX_MEMORY_BYTES must be at least twice COSTAPP_MAX_BODY_BYTES.")
    try:
        read_allowed(part.strip() for part in settings.scrape_allow.split(",") if part.strip())
    except ValueError as problem:
        raise SettingError(f"COSTAPP_SCRAPE_ALLOW: {problem}") from None
    return settings


def _text(environ: Mapping[str, str], name: str) -> str:
    """The value itself, or the content of the file that NAME_FILE names (container secrets)."""
    text = environ.get(name, "").strip()
    path = environ.get(f"{name}_FILE", "")
    if text or not path:
        return text
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise SettingError(f"{name}_FILE names {path}, which cannot be read.") from None


def _integer(metadata: Mapping[str, Any], text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise SettingError(f"{metadata['env']} must be a whole number, not {text!r}.") from None
    if value < metadata["minimum"]:
        raise SettingError(f"{metadata['env']} must be at least {metadata['minimum']}, not {value}.")
    return value
