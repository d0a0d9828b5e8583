"""From the spans of a trace to its model calls. Pure: no clock, no I/O, independent of the order of spans."""

from collections.abc import Sequence

from costapp.core.token_rules import DEFAULT, TokenRules
from costapp.core.values import Call, Role, Span, Usage, UsageState, Verdict


def resolve(spans: Sequence[Span], *, rules: TokenRules = DEFAULT) -> list[Call]:
    """The model calls these spans describe, in a stable order."""
    unique = {(span.trace_id, span.span_id): span for span in spans}
    calls = []
    for key in sorted(unique):
        span = unique[key]
        f = span.facts
        if f.role != Role.CALL:
            continue
        known = bool(f.input or f.output)
        cr, cw = f.cache_read or 0, f.cache_write or 0
        usage = Usage(input=max((f.input or 0) - cr - cw, 0), cache_read=cr, cache_write_5m=cw, output=f.output or 0)
        feature, source = _inherit(unique, span, "feature")
        calls.append(Call(
            trace_id=span.trace_id, span_id=span.span_id, start_ns=span.start_ns, duration_us=f.duration_us,
            ttft_us=f.ttft_us, service=f.service or "", span_name=f.name, operation=f.operation or "chat",
            provider=(f.provider_raw or "").lower(), provider_raw=f.provider_raw or "",
            model=f.model_responded or f.model_requested or "", model_requested=f.model_requested or "",
            region=f.region or "", service_tier=f.service_tier or "", host=f.host or "", feature=feature,
            user=_inherit(unique, span, "user")[0], session=_inherit(unique, span, "session")[0],
            team=_inherit(unique, span, "team")[0], environment=f.environment or "",
            variant=_inherit(unique, span, "variant")[0], prompt_version=_inherit(unique, span, "prompt_version")[0],
            attribution_source=source, usage=usage if known else Usage(),
            usage_state=UsageState.REPORTED if known else UsageState.UNKNOWN, usage_rule="inclusive", unit="",
            error=(f.error or "error") if f.status == 2 else "", finish_reason=f.finish_reason or "", flags=0, attempts=1,
            members=1, reported_nano=f.reported_nano, reported_source=f.reported_source or "", prompt_hash=f.prompt_hash,
            prompt_chars=f.prompt_chars, output_chars=f.output_chars, signal=f.signal,
        ))
    return calls


def explain(spans: Sequence[Span], *, rules: TokenRules = DEFAULT) -> list[Verdict]:
    """Why each span was charged or not."""
    return [
        Verdict(span.trace_id, span.span_id, "charged" if span.facts.role == Role.CALL else "plain", None, None, "")
        for span in spans
    ]


def _inherit(unique: dict[tuple[bytes, int], Span], span: Span, field: str) -> tuple[str, int]:
    seen = set()
    source, key = 1, (span.trace_id, span.span_id)
    while key in unique and key not in seen:
        seen.add(key)
        if value := getattr(unique[key].facts, field):
            return value, source
        key, source = (key[0], unique[key].parent_id), 2
    value = getattr(span.facts, f"resource_{field}", None)
    return (value, 4) if value else ("", 0)
