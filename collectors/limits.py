"""Limits over time and over requests: memory in use, and the rate of each key."""

import time

from collectors.counters import Counters
from collectors.errors import TOO_FAST, Refusal, unavailable

_BURST_SECONDS = 10  # a bucket holds this many seconds' worth
_BUCKETS = 10_000


class Memory:
    """The sum of bodies that are being handled, so that a crowd of senders cannot exhaust the process."""

    def __init__(self, limit: int, counters: Counters) -> None:
        self._limit = limit
        self._counters = counters
        self.used = 0

    def hold(self) -> "Hold":
        return Hold(self)

    def take(self, size: int) -> None:
        if self.used + size > self._limit and self.used:  # one request alone may always be handled
            raise unavailable("memory_full", "The collector is handling as much as it can; send it again.")
        self._change(size)

    def give_back(self, size: int) -> None:
        self._change(-size)

    def _change(self, size: int) -> None:
        self.used += size
        self._counters.set("memory_bytes", self.used)


class Hold:
    """What one request holds of the memory; given back when it is answered, whatever happens."""

    __slots__ = ("_memory", "_size")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._size = 0

    def add(self, size: int) -> None:
        self._memory.take(size)
        self._size += size

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, *error: object) -> None:
        self._memory.give_back(self._size)


class Rate:
    """A token bucket per key. What a request takes is known only after decoding, so a bucket may go below zero."""

    def __init__(self, per_second: int, what: str) -> None:
        self._per_second = per_second
        self._what = what
        self._buckets: dict[int, tuple[float, float]] = {}  # key id -> (level, at)

    def check(self, key_id: int) -> None:
        if self._per_second:
            level = self._level(key_id)
            if level < 0:
                wait = int(-level / self._per_second) + 1
                raise Refusal(
                    TOO_FAST, "rate_limited",
                    f"This key may send {self._per_second} {self._what} per second; send it again later.", wait,
                )  # fmt: skip

    def charge(self, key_id: int, amount: int) -> None:
        if self._per_second:
            if len(self._buckets) >= _BUCKETS:
                self._buckets.clear()
            self._buckets[key_id] = (self._level(key_id) - amount, time.monotonic())

    def _level(self, key_id: int) -> float:
        full = float(self._per_second * _BURST_SECONDS)
        level, at = self._buckets.get(key_id, (full, 0.0))
        return min(full, level + (time.monotonic() - at) * self._per_second)
