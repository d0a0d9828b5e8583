"""What Costapp understood of a recording, in the words of the recordings' manifest."""

from collections.abc import Iterable, Mapping
from typing import Any

from costapp.core.values import AttributionSource, CostStatus, UsageState

SUMS = (
    "calls_seen",
    "failed_seen",
    "usage_unknown",
    "input_total",
    "cache_read",
    "cache_write",
    "output_total",
    "reasoning",
)
_METERS = {
    "input": "input_tokens", "cache_read": "cache_read_tokens", "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens", "output": "output_tokens", "reasoning": "reasoning_tokens",
    "audio_in": "audio_in_tokens", "audio_out": "audio_out_tokens", "image_in": "image_in_tokens",
    "image_out": "image_out_tokens", "units": "units",
}  # fmt: skip
_INPUT = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_in", "image_in")
_OUTPUT = ("output", "reasoning", "audio_out", "image_out")


def call_of(charge: Mapping[str, Any]) -> dict[str, Any]:
    """One charge as replay prints it. Money in nano-dollars; a null cost means unpriced."""
    return {
        "provider": charge["provider"],
        "model": charge["model"],
        "feature": charge["feature"] or None,
        "user": charge["user_id"] or None,
        "session": charge["session_id"] or None,
        "meters": {meter: charge[column] for meter, column in _METERS.items() if charge[column]},
        "cost_nano": charge["cost_nano"],
        "cost_status": CostStatus(charge["cost_status"]).name.lower(),
        "usage_state": UsageState(charge["usage_state"]).name.lower(),
        "attribution_source": AttributionSource(charge["attribution_source"]).name.lower(),
        "error": charge["error"],
        "trace_id": charge["trace_id"].hex,
    }


def sums_of(calls: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Totals of calls: ``calls_seen`` succeeded, ``failed_seen`` did not; unknown usage is counted, not guessed."""
    sums = dict.fromkeys((*SUMS, "cost_nano", "unpriced"), 0)
    for call in calls:
        meters = call["meters"]
        sums["failed_seen" if call["error"] else "calls_seen"] += 1
        sums["usage_unknown"] += not call["error"] and call["usage_state"] == "unknown"
        sums["input_total"] += sum(meters.get(meter, 0) for meter in _INPUT)
        sums["cache_read"] += meters.get("cache_read", 0)
        sums["cache_write"] += meters.get("cache_write_5m", 0) + meters.get("cache_write_1h", 0)
        sums["output_total"] += sum(meters.get(meter, 0) for meter in _OUTPUT)
        sums["reasoning"] += meters.get("reasoning", 0)
        sums["cost_nano"] += call["cost_nano"] or 0
        sums["unpriced"] += call["cost_nano"] is None
    return sums


def added(sums: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of sums."""
    total = dict.fromkeys((*SUMS, "cost_nano", "unpriced"), 0)
    for one in sums:
        for name in total:
            total[name] += one[name]
    return total


def differences(expected: Mapping[str, int], sums: Mapping[str, int]) -> list[str]:
    """Where the result is not what the manifest says can be known; empty = a match."""
    return [
        f"{name} {sums[name]} instead of {value}"
        for name, value in expected.items()
        if name in sums and sums[name] != value
    ]
