"""What the calls of one trace say about each other: retries and fallbacks.

Only what the wire shows: retries inside an SDK are invisible, so these are lower bounds.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from costapp.core.values import ChargeFlag

#: A call this long after a failed one is not its retry.
RETRY_WINDOW_NS = 10 * 60 * 1_000_000_000

_RETRY = int(ChargeFlag.RETRY)
_FALLBACK = int(ChargeFlag.FALLBACK)


class Attempt(NamedTuple):
    """What pattern detection needs to know of one call. Sorts by start."""

    start_ns: int
    span_id: int
    end_ns: int
    place: tuple[bytes, int]  # trace and parent: retries are siblings
    operation: str
    model: str
    prompt_hash: int | None
    failed: bool


def flags(attempts: Iterable[Attempt]) -> Mapping[tuple[bytes, int], int]:
    """RETRY and FALLBACK bits, by (trace id, span id).

    A sibling that starts after a failed call has ended repeats it if it does the same operation with a
    prompt that is not known to differ: with the same model it is a retry, with another a fallback. A
    success ends the chain.
    """
    found: dict[tuple[bytes, int], int] = {}
    failures: dict[tuple[bytes, int, str], list[Attempt]] = {}
    for attempt in sorted(attempts):
        place = (*attempt.place, attempt.operation)
        repeated = next((f for f in reversed(failures.get(place, ())) if _repeats(f, attempt)), None)
        if repeated is not None:
            same = repeated.model == attempt.model
            found[(attempt.place[0], attempt.span_id)] = _RETRY if same else _FALLBACK
            failures[place].remove(repeated)
        if attempt.failed:
            failures.setdefault(place, []).append(attempt)
            del failures[place][:-8]  # more open failures than this are not one chain
    return found


def _repeats(failure: Attempt, attempt: Attempt) -> bool:
    if not failure.end_ns <= attempt.start_ns <= failure.end_ns + RETRY_WINDOW_NS:
        return False
    return None in (failure.prompt_hash, attempt.prompt_hash) or failure.prompt_hash == attempt.prompt_hash
