"""Posting to a user's address, and what the answer means."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from costapp.core.targets import Refused
from costapp.services import outgoing
from costapp.services.channels.message import Outcome, broken, later, rejected, sent
from costapp.services.outgoing import Answer, Unreachable

#: Codes that say: this address will not take messages any more.
GONE = frozenset({401, 403, 404, 405, 410})
TRY_AGAIN = frozenset({408, 425, 429})
LONGEST_WAIT = timedelta(hours=24)


def deliver(url: str, body: bytes, headers: Mapping[str, str], *, who: str) -> tuple[Outcome, Answer | None]:
    """The answer too, for receivers that say more in it than the status."""
    try:
        answer = outgoing.post(url, body, headers)
    except Refused as problem:
        return broken(str(problem)), None
    except Unreachable as problem:
        return later(str(problem)), None
    return meaning(answer, who), answer


def meaning(answer: Answer, who: str) -> Outcome:
    status = answer.status
    if 200 <= status < 300:
        return sent(f"{who} answered {status}.")
    if status in TRY_AGAIN or status >= 500:
        return later(f"{who} answered {status}.", retry_after(answer.headers.get("retry-after", "")))
    if 300 <= status < 400:
        return broken(f"{who} answered with a redirect ({status}), which is not followed. Enter the final address.")
    if status in GONE:
        return broken(f"{who} answered {status}: the address was revoked, or never existed.")
    return rejected(f"{who} refuses this message ({status}).")


def retry_after(value: str, now: datetime | None = None) -> timedelta | None:
    """Seconds or a date; None when absent or unreadable."""
    if value.isascii() and value.isdigit():
        return min(timedelta(seconds=int(value[:9])), LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(moment - (now or datetime.now(UTC)), timedelta()), LONGEST_WAIT)
