"""Claude Code, Codex CLI and Gemini CLI: calls as log events, and as spans when those are switched on.

Their spans and events carry no common id, so both derive one from what they do share (`derived_id`): a
call that arrives as a span and as an event is found to be one.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from collectors.dialects.rules import Rule, Table, count, duration, text, usd
from collectors.dialects.scalars import text_of, truth_of
from collectors.dialects.types import Fact, Hit, Scalar
from costapp.core.errors import error_class
from costapp.core.values import Role, UsageShape

_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")


def _error_message(value: Scalar) -> Hit | None:
    """Only the class of the message: the message itself may quote the prompt."""
    message = text_of(value)
    return (Fact("bare_error", 1, error_class(message[:200])),) if message else None


def _success(value: Scalar) -> Hit | None:
    return (Fact("bare_failed", 0, True),) if truth_of(value) is False else None


#: Names without a namespace: believed only on spans and events of these clients (slots "bare_*").
TABLE: Table = {
    "model": text("model_bare", 0),
    "input_tokens": count("bare_input", loose=True),
    "output_tokens": count("bare_output", loose=True),
    "cache_read_tokens": count("bare_cache_read", loose=True),
    "cache_creation_tokens": count("bare_cache_write", loose=True),
    "input_token_count": count("bare_input", 1, loose=True),
    "output_token_count": count("bare_output", 1, loose=True),
    "cached_token_count": count("bare_cache_read", 1, loose=True),
    "cached_content_token_count": count("bare_cache_read", 2, loose=True),
    "cache_write_token_count": count("bare_cache_write", 1, loose=True),
    "reasoning_token_count": count("bare_reasoning", loose=True),
    "thoughts_token_count": count("bare_reasoning", 1, loose=True),
    "tool_token_count": count("bare_tool", loose=True),
    "cost_usd_micros": usd("bare_cost", name="cost_usd_micros", units_per_usd=1_000_000),
    "cost_usd": usd("bare_cost", 1, name="cost_usd"),
    "duration_ms": duration("bare_duration_us", per_second=1000),
    "ttft_ms": duration("bare_ttft_us", per_second=1000),
    "request_id": text("request_id"),
    "stop_reason": text("bare_finish", 0),
    "status_code": count("bare_status", loose=True),
    "error_type": text("bare_error"),
    "error": Rule(("error",), _error_message),
    "success": Rule(("status",), _success),
    "attempt": count("bare_attempt", loose=True),
    "speed": text("bare_speed"),
    "thread.id": text("os_or_codex_thread"),
    "event.name": text("event_name"),
    "event.kind": text("event_kind"),
    "event.sequence": count("event_sequence", loose=True),
    "event.timestamp": text("event_timestamp"),
    "prompt.id": text("prompt_id"),
}


class Client(NamedTuple):
    """One client's habits."""

    name: str
    provider: str
    success: str  # event of a completed call
    failure: str  # event of a failed call
    shape: UsageShape
    tool_adds: bool = False  # tool_token_count is input beside input_token_count


CLIENTS: Mapping[str, Client] = {
    "claude_code.api_request": (
        _claude := Client(
            "claude", "anthropic", "claude_code.api_request", "claude_code.api_error", UsageShape.INPUT_EXCLUDES_CACHE
        )
    ),
    "claude_code.api_error": _claude,
    "codex.sse_event": (_codex := Client("codex", "", "codex.sse_event", "codex.api_error", UsageShape.INCLUSIVE)),
    "gemini_cli.api_response": (
        _gemini := Client(
            "gemini",
            "gcp.gemini",
            "gemini_cli.api_response",
            "gemini_cli.api_error",
            UsageShape.OUTPUT_EXCLUDES_REASONING,
            tool_adds=True,
        )
    ),
    "gemini_cli.api_error": _gemini,
}
_PLACES = {
    "bare_input": "input",
    "bare_output": "output",
    "bare_cache_read": "cache_read",
    "bare_cache_write": "cache_write",
    "bare_reasoning": "reasoning",
    "bare_ttft_us": "ttft_us",
    "bare_finish": "finish_reason",
}

Found = dict[str, object]


def take_bare_names(found: Found) -> None:
    """Accept the names without a namespace. Only for spans and events of the clients above."""
    for bare, slot in _PLACES.items():
        if bare in found:
            found.setdefault(slot, found[bare])
    if "bare_cost" in found:
        found.setdefault("reported_nano", found["bare_cost"])
        found.setdefault("reported_source", found["bare_cost_source"])


def claude_span(found: Found) -> None:
    """A beta span `claude_code.llm_request`."""
    take_bare_names(found)
    found.setdefault("provider_raw", "anthropic")
    found.setdefault("operation", "chat")
    found["response_id"] = claude_id(found)
    attempt = found.get("bare_attempt")
    if isinstance(attempt, int) and attempt > 1:
        found.setdefault("resends", attempt - 1)
    if found.get("bare_failed"):
        found["failed"] = True
        found.setdefault("error", _failure(found))


def _failure(found: Found) -> object:
    status = found.get("bare_status")
    return str(status) if status else found.get("bare_error")


def claude_id(found: Found) -> str | None:
    """The API's request id, on spans and events alike; else the session and the four counts."""
    request = found.get("request_id")
    if request:
        return str(request)
    counts = [found.get(slot) for slot in ("input", "output", "cache_read", "cache_write")]
    return derived_id("claude", found.get("session"), *counts) if any(counts) else None


def codex_span(found: Found) -> None:
    """`handle_responses` and the turn around it: names of OpenTelemetry without operation or provider."""
    thread = str(found.get("os_or_codex_thread") or "")
    if _UUID.match(thread):  # elsewhere thread.id is the operating system's
        found["session"], found["session_explicit"] = thread, True
    if found.get("input") or found.get("output"):
        found["response_id"] = derived_id("codex", found.get("input"), found.get("output"))


def gemini_span(found: Found) -> None:
    """Span `llm_call`: leaves the thoughts out, as the event does, but does not state them."""
    if found.get("input") or found.get("output"):
        found.setdefault("response_id", derived_id("gemini", found.get("input"), found.get("output")))
    found.setdefault("usage_shape", int(UsageShape.OUTPUT_EXCLUDES_REASONING))


def event(client: Client, name: str, found: Found) -> bool:
    """Complete the facts of a usage event; False if this event is not one completed or failed call."""
    take_bare_names(found)
    if name == client.failure:
        found["failed"] = True
        found.setdefault("error", _failure(found))
    elif client.name == "codex" and (found.get("event_kind") != "response.completed" or "input" not in found):
        return False  # each completion is written twice, once without tokens
    if client.provider:
        found.setdefault("provider_raw", client.provider)
    if client.tool_adds and isinstance(tool := found.get("bare_tool"), int) and isinstance(found.get("input"), int):
        found["input"] += tool  # type: ignore[operator]
    found["usage_shape"] = int(client.shape)
    found["operation"], found["role"] = "chat", int(Role.CALL)
    if client.name == "claude":
        found["response_id"] = claude_id(found)
        if found.get("bare_speed") == "fast":
            found["service_tier"] = "fast"
    elif name == client.success:
        found.setdefault("response_id", derived_id(client.name, found.get("bare_input"), found.get("bare_output")))
    return True


def derived_id(client: str, *parts: object) -> str:
    """An id for calls whose client sends none. The prefix keeps it apart from providers' ids."""
    return "~" + ":".join([client, *("" if part is None else str(part) for part in parts)])
