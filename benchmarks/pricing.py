"""Prices per second, and what a rate book costs to load and to keep.

    DATABASE_URL=postgresql://… python benchmarks/pricing.py [--calls 200000] [--seed 1]

Needs a database with the catalogue (manage.py import_prices); writes nothing. One process, one core.
The calls are an ordinary mix of models and spellings, half of them with cached input, one in
thirty long. `genai-prices` prices a sample of the same calls for comparison.
"""

import argparse
import os
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg

from costapp.core.values import Call, Usage
from costapp.storage import rates

MODELS = [
    ("openai", "gpt-4o"), ("openai", "gpt-4o-2024-08-06"), ("openai", "gpt-4o-mini"), ("openai", "gpt-5"),
    ("openai", "gpt-5-mini"), ("openai", "o3-mini"), ("openai", "gpt-4.1"), ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-sonnet-4-5-20250929"), ("anthropic", "claude-haiku-4-5"), ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-flash"), ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("azure", "gpt-4o"), ("mistral", "mistral-large-latest"), ("deepseek", "deepseek-chat"),
    ("groq", "llama-3.3-70b-versatile"), ("", "openai/gpt-4o-mini"), ("self-hosted", "llama-3"),
]  # fmt: skip
ROUNDS = 5


def main() -> None:
    options = _options()
    with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
        _loading(conn)
        book = rates.load_rate_book(conn, 0)
    calls = make_calls(options.calls, random.Random(options.seed))
    first = _seconds(lambda: [book.price(call) for call in calls[: len(MODELS) * 4]])
    print(f"first look-up of {len(book._entries)} spellings: {first * 1000:.1f} ms")

    def price_all() -> None:
        for call in calls:
            book.price(call)

    speed = statistics.median(len(calls) / _seconds(price_all) for _ in range(ROUNDS))
    print(f"price(): {speed:,.0f} calls/s, {1e6 / speed:.2f} us per call (median of {ROUNDS} x {len(calls):,})")
    _compare(calls[:500], speed)


def _loading(conn: psycopg.Connection[Any]) -> None:
    version = statistics.median(_wall(lambda: rates.rates_version(conn)) for _ in range(20))
    loads = []
    for _ in range(ROUNDS):
        rates._cached_catalogue = None
        loads.append(_wall(lambda: rates.load_rate_book(conn, 0)))
    again = _wall(lambda: rates.load_rate_book(conn, 1))
    rates._cached_catalogue = None
    tracemalloc.start()
    catalogue = rates.load_catalogue(conn)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    count = sum(map(len, catalogue.rate_sets.values()))
    print(f"catalogue: {count:,} rate sets of {len(catalogue.rate_sets):,} models, {size / 1e6:.1f} MB in memory")
    print(f"load: {statistics.median(loads) * 1000:.0f} ms, for another project {again * 1000:.1f} ms")
    print(f"is it still current: {version * 1000:.2f} ms")


def make_calls(count: int, dice: random.Random) -> list[Call]:
    fields: dict[str, Any] = dict.fromkeys(Call._fields, "")
    numbers = ("attribution_source", "flags", "signal")
    unknown = ("duration_us", "ttft_us", "reported_nano", "prompt_hash", "prompt_chars", "output_chars")
    fields.update(dict.fromkeys(numbers, 0) | dict.fromkeys(unknown))
    fields.update(trace_id=bytes(16), span_id=1, operation="chat", usage_state=1, attempts=1, members=1)
    now_ns = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 10**9
    calls = []
    for number in range(count):
        provider, model = MODELS[number % len(MODELS)]
        usage = Usage(
            input=dice.randrange(400_000 if number % 30 == 0 else 4_000),
            cache_read=dice.randrange(8_000) if number % 2 else 0,
            output=dice.randrange(1_500),
            reasoning=dice.randrange(800) if number % 5 == 0 else 0,
        )
        stated = {"provider": provider, "model": model, "model_requested": model, "usage": usage}
        calls.append(Call(**(fields | stated | {"start_ns": now_ns - dice.randrange(60 * 86_400) * 10**9})))
    return calls


def _compare(calls: list[Call], speed: float) -> None:
    """The package itself, where it knows the same model under the same provider name."""
    from genai_prices import Usage as TheirUsage
    from genai_prices import calc_price

    known = [call for call in calls if call.provider in ("openai", "anthropic", "google", "groq", "mistral")]

    def price_all() -> None:
        for call in known:
            total = sum(call.usage[:4])
            usage = TheirUsage(
                input_tokens=total, cache_read_tokens=call.usage.cache_read, output_tokens=sum(call.usage[4:6])
            )
            at = datetime.fromtimestamp(call.start_ns / 1e9, UTC)
            calc_price(usage, call.model, provider_id=call.provider, genai_request_timestamp=at)

    price_all()
    theirs = len(known) / _seconds(price_all)
    print(f"genai-prices calc_price: {theirs:,.0f} calls/s ({speed / theirs:,.0f} times slower)")


def _seconds(action: Callable[[], Any]) -> float:
    """CPU seconds of this process: other work on the machine does not count."""
    start = time.process_time()
    action()
    return time.process_time() - start


def _wall(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
