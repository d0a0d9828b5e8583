"""What needs several attributes of a span at once: its role, its error, its time to first token, and the
habits of single clients."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from collectors.dialects import coding_agents, content
from collectors.dialects.scalars import clean
from collectors.dialects.types import Event, Scope
from costapp.core.errors import OTHER, error_class
from costapp.core.values import Role, SpanFlag

#: Facts that only calls and usage-bearing spans keep.
CALL_SLOTS = frozenset({
    "operation", "provider_raw", "model_requested", "model_responded", "response_id", "input", "output", "cache_read",
    "cache_write", "cache_write_1h", "reasoning", "usage_shape", "ttft_us", "error", "host", "service_tier", "region",
    "finish_reason", "reported_nano", "reported_source", "prompt_hash", "prompt_chars", "output_chars", "prompt_name",
    "agent", "audio_in", "audio_out", "image_in", "image_out", "resends", "units", "unit", "queue_us", "prefill_us",
    "decode_us",
})  # fmt: skip
_ATTRIBUTION = ("feature", "user", "session", "team", "variant", "prompt_version")
_CONTENT = frozenset({"prompt", "prompt_part", "answer", "answer_part"})
_USAGE = ("input", "output", "cache_read", "cache_write")

#: Facts that most spans take from an attribute as it is (see `takes_as_they_are`), and that differ most often.
PASSED_ON = frozenset({
    "input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "ttft_us", "response_id", "user",
    "session", "queue_us", "prefill_us", "decode_us",
})  # fmt: skip

#: Span events that mark the first token.
FIRST_TOKEN_EVENTS = frozenset({
    "First Token Stream Event", "ai.stream.firstChunk", "gen_ai.content.completion.chunk",
    "llm.content.completion.chunk", "gen_ai.choice.chunk", "first_token",
})  # fmt: skip
_INVENTED_ID = re.compile(r"^(chatcmpl-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
#: Cloud endpoints name the region that decides the price.
_REGION_IN_HOST = re.compile(
    r"^bedrock-runtime(?:-fips)?\.([a-z0-9-]{4,24})\.amazonaws\.com|^([a-z0-9-]{4,24})-aiplatform\.googleapis\.com"
)
_CODEX_SPANS = ("handle_responses", "session_task.turn")
_RUN_ID = re.compile(r"^(lc_)?run-")
_STREAM, _LATE, _DROPPED = int(SpanFlag.STREAM), int(SpanFlag.LATE_RESULT), int(SpanFlag.CONTENT_DROPPED)
_CALL, _MAYBE = int(Role.CALL), int(Role.MAYBE)

Found = dict[str, Any]


def role_of(found: Found, *, scope: Scope, service: str) -> int:
    """What the span says it is; without a word about it, usage makes it a candidate.

    Gemini CLI writes an event for every call, but gives its span neither the tokens of a stream nor the trace
    of the event: a span of it without tokens would be a second call.
    """
    role: int | None = found.pop("role", None)
    if role is None:
        return _MAYBE if states_usage(found) else int(Role.PLAIN)
    if role == _CALL and _is_gemini(scope, service) and not states_usage(found):
        return int(Role.PLAIN)
    return role


def _is_gemini(scope: Scope, service: str) -> bool:
    return service == "gemini-cli" or scope.name.startswith("gemini-cli")


def states_usage(found: Mapping[str, Any]) -> bool:
    """Whether any token count is stated, be it zero."""
    return "input" in found or "output" in found or "cache_read" in found or "cache_write" in found


def attribution_of(found: Mapping[str, Any]) -> tuple[Found, int, int]:
    """The attribution facts, and the ranks of feature and session (0 = explicit)."""
    kept = {slot: found[slot] for slot in _ATTRIBUTION if slot in found}
    feature_rank = session_rank = 0
    if "feature" not in kept and "weak_feature" in found:
        kept["feature"], feature_rank = found["weak_feature"], found["weak_feature_rank"]
    if "session" not in kept and "weak_session" in found:
        kept["session"], session_rank = found["weak_session"], 1
    return kept, feature_rank, session_rank


def call(
    found: Found, *, name: str, role: int, status: int, start_ns: int, flags: int, scope: Scope, service: str,
    events: Sequence[Event], secret: bytes,
) -> int:  # fmt: skip
    """Complete the facts of a call or usage-bearing span in place; returns its flags."""
    if flags & _LATE and not scope.name.startswith("logfire"):
        flags &= ~_LATE
    _client_habits(found, name=name, role=role, scope=scope, service=service)
    if "model_bare" in found and "model_requested" not in found:
        found["model_requested"] = found["model_bare"]
    _host(found)
    _response_id(found, scope)
    _outcome(found, status, events)
    if "ttft_us" not in found:
        _first_token(found, start_ns, flags, scope, events)
    _content(found, secret)
    if scope.name.startswith("logfire") and flags & (_LATE | _STREAM):
        _link_logfire_stream(found)
    return flags


def passes_on(slot: str, value: Any) -> bool:
    """Whether the value of this slot may be one of those that go into the facts as they are."""
    return slot in PASSED_ON and not (slot == "response_id" and _RUN_ID.match(value))


def takes_as_they_are(found: Mapping[str, Any], *, name: str, scope: Scope, service: str) -> bool:
    """Whether a span without events, merged to `found`, would have the same facts with other values that `passes_on`
    allows in the same slots, except for these values and the duration. False in doubt.

    So the decoder can reuse what it found out about one call for the next. Everything above that looks at such a value,
    and not only whether it is there, is listed here.
    """
    if scope.name.startswith("com.anthropic.claude_code") or _is_gemini(scope, service):
        return False
    if service.startswith("codex") or name in _CODEX_SPANS:
        return False
    if "error" in found or (found.get("http_status") or found.get("bare_status") or 0) >= 400:
        return False  # failed only if it used no tokens
    if "first_token_ns" in found or "call_id" in found:
        return False
    return not ("response_id" in found and scope.name.startswith("litellm"))


def _link_logfire_stream(found: Found) -> None:
    """A stream's request and its result share the prompt and nothing else, not even the trace if nothing
    was around them. The hash is keyed, so the prompt cannot be guessed from it."""
    if found.get("prompt_hash") is not None and "response_id" not in found:
        found["response_id"] = coding_agents.derived_id("logfire", found["prompt_hash"], found.get("model_requested"))


def _client_habits(found: Found, *, name: str, role: int, scope: Scope, service: str) -> None:
    if scope.name.startswith("com.anthropic.claude_code"):
        if role == _CALL:
            coding_agents.claude_span(found)
    elif service.startswith("codex") or name in _CODEX_SPANS:
        coding_agents.codex_span(found)
    elif _is_gemini(scope, service) and role == _CALL:
        coding_agents.gemini_span(found)


def _host(found: Found) -> None:
    """``address[:port]``, without scheme, path and the ports that say nothing."""
    host = found.get("host")
    if host is None:
        return
    host = host.partition("://")[2] or host
    host = host.partition("/")[0]
    port = found.get("port")
    if port and ":" not in host and port not in (443, 80):
        host = f"{host}:{port}"
    found["host"] = clean(host) or None
    if "region" not in found and (region := _REGION_IN_HOST.search(host)):
        found["region"] = region.group(1) or region.group(2)


def _response_id(found: Found, scope: Scope) -> None:
    """Drop ids that the client made up: they would keep twins of one call apart."""
    identity = found.get("response_id")
    if not identity:
        return
    made_up = identity == found.get("call_id") or _RUN_ID.match(identity)
    if made_up or (scope.name.startswith("litellm") and _INVENTED_ID.match(identity)):
        del found["response_id"]


def _outcome(found: Found, status: int, events: Sequence[Event]) -> None:
    """Whether the call failed, and why: an error type, an HTTP status, or the type of an exception event."""
    http_status = found.get("http_status") or found.get("bare_status")
    failed = status == 2 or found.get("failed")
    if not failed and ("error" in found or (http_status or 0) >= 400):
        failed = not any(found.get(slot) for slot in _USAGE)
    if not failed:
        found.pop("error", None)
        return
    found["status"] = 2
    exception, hint = _exception(events)
    error = found.get("error") or exception or ""
    if error_class(error) in (OTHER, "server_error", ""):
        known = http_status or found.get("error_hint") or hint
        error = f"{known or ''} {error}".strip()
    found["error"] = clean(error, 128) or None


def _exception(events: Sequence[Event]) -> tuple[str, str]:
    """Type of the first exception event, and the class of its message."""
    for event in events:
        if event.name == "exception":
            stated = {slot: str(value) for hit in event.hits for slot, _, value in hit}
            return stated.get("error", ""), stated.get("error_hint", "")
    return "", ""


def _first_token(found: Found, start_ns: int, flags: int, scope: Scope, events: Sequence[Event]) -> None:
    """Time to first token from what is left: an unsure unit, an absolute time, or a span event."""
    unsure = found.get("ttft_unsure_us")
    at_ns = found.get("first_token_ns")
    if unsure is not None and scope.name.startswith("strands"):
        found["ttft_us"] = unsure // 1000  # strands sends milliseconds under a name that means seconds
    elif unsure is not None and (flags & _STREAM or not scope.name.startswith("openlit")):
        found["ttft_us"] = unsure  # without a stream, OpenLIT repeats the duration
    elif at_ns is not None:
        _ttft(found, at_ns - start_ns)
    elif events:
        first = min(
            (e.time_ns for e in events if e.name in FIRST_TOKEN_EVENTS or e.name.startswith("mlflow.chunk.item.")),
            default=None,
        )
        if first is not None:
            _ttft(found, first - start_ns)


def _ttft(found: Found, elapsed_ns: int) -> None:
    if 0 <= elapsed_ns < 86_400_000_000_000:
        found["ttft_us"] = elapsed_ns // 1000


def _content(found: Found, secret: bytes) -> None:
    """One message per attribute beats a document that may hold more than the messages."""
    if _CONTENT.isdisjoint(found):
        return
    for slot, hash_slot, chars_slot in (("prompt", "prompt_hash", "prompt_chars"), ("answer", None, "output_chars")):
        parts = found.get(f"{slot}_part")
        digest = found.get(slot)
        if parts:
            digest = content.combined(secret, [part for _, part in sorted(parts, key=lambda item: item[0])])
        if digest is not None:
            if hash_slot:
                found[hash_slot] = int.from_bytes(digest.hash, "big", signed=True)
            found[chars_slot] = digest.chars
