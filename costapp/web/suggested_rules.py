"""Rules that most projects want, one click away: what the form is filled with."""

from typing import Any, NamedTuple

REMIND_DAILY = 1440


class Suggestion(NamedTuple):
    key: str
    why: str
    values: dict[str, Any]


def _rule(key: str, name: str, why: str, **values: Any) -> Suggestion:
    return Suggestion(key, why, {"name": name, "calm_readings": 2, "remind_minutes": REMIND_DAILY, **values})


SUGGESTIONS: dict[str, Suggestion] = {
    suggestion.key: suggestion
    for suggestion in (
        _rule(
            "cost-jump", "Cost of a feature has jumped",
            "A deploy, a loop or a customer that moves the bill away from its usual.",
            metric="cost", by="feature", window="6h", condition="over_band", warning="8", critical="20",
            minimum_requests=100, calm_readings=36,
        ),
        _rule(
            "dear-answers", "Answers have become dear",
            "A longer prompt or another model shows here before the bill does.",
            metric="cost_per_1k", by="feature", window="1h", condition="over_band", warning="4", critical="10",
            minimum_requests=50,
        ),
        _rule(
            "failing", "Calls fail", "Failed calls are often billed, and retried.",
            metric="error_rate", by="feature", window="30m", condition="above", warning="10", critical="30",
            minimum_requests=50,
        ),
        _rule(
            "silent", "Nothing arrives", "An app that stopped sending looks like a saving.",
            metric="silence", by="", window="1h", condition="above", warning="30", critical="120",
        ),
        _rule(
            "unpriced", "A model carries no price", "What has no price is missing from every total.",
            metric="unpriced_share", by="model", window="24h", condition="above", warning="50", minimum_requests=20,
        ),
        _rule(
            "slow", "A workload has become slow", "Compared with the same hour of past weeks.",
            metric="latency_p95", by="workload", window="1h", condition="over_band", warning="5",
            minimum_requests=50,
        ),
        _rule(
            "cache-lost", "The cache no longer helps", "A changed prompt prefix can cost more than a changed model.",
            metric="cache_hit", by="feature", window="24h", condition="falls", warning="40", minimum_requests=200,
        ),
    )
}  # fmt: skip
