"""The cause of one story: ranked drivers, the parts of the difference, and the sentence that says it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pandas as pd
import psycopg

from anomaly.blame import Driver, explain
from anomaly.decompose import Decomposition, Usage, decompose
from anomaly.sentences import Concentration, sentence
from costapp.services.anomalies.series import HOUR, Odd
from costapp.storage.reports.anomaly_cells import LEAF_MEASURES, Leaf, leaves, top_spender
from costapp.storage.reports.cells import Grain, Scope
from costapp.storage.reports.dimensions import DIMENSIONS

Connection = psycopg.Connection[Any]

#: In this order: of several names for the same calls the first is told.
BLAMED = ("feature", "prompt_version", "model", "environment", "variant", "team")
#: Something new of these takes the place of an older one, and is compared with it.
RELEASED = frozenset({"prompt_version", "model", "variant"})
DAYS_BACK = 14
#: A longer anomaly is explained by its first day: earlier windows of the same shape must not lie in it.
LONGEST = timedelta(hours=24)
MOST_LEAVES = 200_000
MOST_DRIVERS = 5
_COST = LEAF_MEASURES.index("cost_nano")
#: One user is named from this share of the money above expectation on, in percent.
ONE_USER_PERCENT = 50


class Cause(NamedTuple):
    title: str
    detail: dict[str, Any]  # ready for JSON: drivers, parts, window, comparison


def window_of(odd: Odd) -> tuple[datetime, datetime]:
    """The hours that explain an anomaly."""
    return odd.start_at, min(odd.end_at, odd.start_at + LONGEST)


def scope_of(project_id: int, zone: str, odd: Odd) -> Scope:
    start, end = window_of(odd)
    return Scope(project_id, zone, start, end, Grain.HOUR, {key: (value,) for key, value in odd.subject.items()})


def cause_of(
    conn: Connection, project_id: int, zone: str, odd: Odd, quiet: Sequence[tuple[datetime, datetime]]
) -> Cause:
    """``quiet``: times of other anomalies, which nothing is compared with."""
    scope = scope_of(project_id, zone, odd)
    dims = [key for key in BLAMED if key not in odd.subject]
    found = leaves(conn, scope, dims, days_back=DAYS_BACK, limit=MOST_LEAVES)
    explanation = explain(_table(found, dims), scope.start, scope.end - HOUR, dims)
    drivers = explanation.drivers[:MOST_DRIVERS]
    main = drivers[0] if drivers else None
    before = _window_before(found, scope, odd, quiet)
    parts = _parts(found, dims, main, before, scope)
    user = _one_user(conn, scope, odd)
    title = sentence(
        _subject_words(odd),
        odd.above_nano,
        f"{odd.start_at.astimezone(ZoneInfo(zone)):%-d %b, %H:%M}",
        parts,
        driver=_driver_words(main, user),
        is_new=bool(main and main.new and not user and not RELEASED & main.where.keys()),
        alike=explanation.alike and not user,
        concentration=_concentration(found, dims, odd, scope, None if user else main),
    )
    return Cause(title, _detail(odd, drivers, explanation.alike, parts, scope, before, user))


def _table(found: Sequence[Leaf], dims: Sequence[str]) -> pd.DataFrame:
    rows = [(leaf.bucket_at, *leaf.values, leaf.amounts[_COST]) for leaf in found]
    table = pd.DataFrame(rows, columns=["timestamp", *dims, "cost"])
    table["timestamp"] = pd.to_datetime(table["timestamp"], utc=True)
    return table


# --- words


def _subject_words(odd: Odd) -> str:
    if not odd.dimension:
        return "The project"
    dimension = DIMENSIONS[odd.dimension]
    name = odd.value or dimension.empty
    return name[:1].upper() + name[1:] if odd.dimension == "feature" else f"{dimension.label} {name}"


def _driver_words(main: Driver | None, user: dict[str, Any] | None) -> str:
    if user:
        return f"user {user['user']}" if user["user"] else f"session {user['session']}"
    if not main:
        return ""
    return f"new {words_of(main.where)}" if main.new and RELEASED & main.where.keys() else words_of(main.where)


def words_of(where: dict[str, Any]) -> str:
    """``prompt version v7 on model gpt-5``"""
    return " on ".join(
        f"{DIMENSIONS[key].label.lower()} {value or DIMENSIONS[key].empty}" for key, value in where.items()
    )


def _concentration(
    found: Sequence[Leaf], dims: Sequence[str], odd: Odd, scope: Scope, main: Driver | None
) -> Concentration | None:
    """The model with most of the money above expectation, where the driver does not name one."""
    if "model" not in dims or (main and "model" in main.where) or odd.above_nano <= 0:
        return None
    place, days = dims.index("model"), _days(found, scope)
    excess: dict[str, int] = {}
    for leaf in found:
        amount = leaf.amounts[_COST] * (days if leaf.bucket_at >= scope.start else -1)
        excess[leaf.values[place]] = excess.get(leaf.values[place], 0) + amount
    whole = sum(excess.values())
    name = max(excess, key=lambda model: (excess[model], model), default="")
    if whole <= 0 or not name or len(excess) < 2:
        return None
    return Concentration(name, Fraction(excess[name], whole))


def _days(found: Sequence[Leaf], scope: Scope) -> int:
    return (
        len({(scope.start - leaf.bucket_at) // timedelta(days=1) for leaf in found if leaf.bucket_at < scope.start})
        or 1
    )


def _one_user(conn: Connection, scope: Scope, odd: Odd) -> dict[str, Any] | None:
    """The user and session behind most of it, if there is one."""
    if odd.above_nano <= 0:
        return None
    top = top_spender(conn, scope)
    if top is None or top.cost_nano * 100 < ONE_USER_PERCENT * odd.above_nano:
        return None
    return {"user": top.user_id, "session": top.session_id, "cost_nano": top.cost_nano}


# --- the parts of the difference


def _window_before(
    found: Sequence[Leaf], scope: Scope, odd: Odd, quiet: Sequence[tuple[datetime, datetime]]
) -> datetime | None:
    """Start of the earlier window, outside other anomalies, whose cost is nearest to what was expected now."""
    start, end = scope.start, scope.end
    hours = (odd.end_at - odd.start_at) // HOUR or 1
    expected = (odd.actual_nano - odd.above_nano) * ((end - start) // HOUR) // hours
    costs: dict[int, int] = {}
    for leaf in found:
        if leaf.bucket_at < start:
            back = -((leaf.bucket_at - start) // timedelta(days=1))
            costs[back] = costs.get(back, 0) + leaf.amounts[_COST]
    candidates = [
        (abs(cost - expected), back)
        for back, cost in costs.items()
        if not any(
            start - timedelta(days=back) < until and since < end - timedelta(days=back) for since, until in quiet
        )
    ]
    return start - timedelta(days=min(candidates)[1]) if candidates else None


def _parts(
    found: Sequence[Leaf], dims: Sequence[str], main: Driver | None, before: datetime | None, scope: Scope
) -> Decomposition | None:
    """Of the driver's calls, or of all calls where the driver did not exist before."""
    if before is None:
        return None
    length = scope.end - scope.start
    then = [leaf for leaf in found if before <= leaf.bucket_at < before + length]
    now = [leaf for leaf in found if leaf.bucket_at >= scope.start]
    return decompose(usage_by(then, dims), usage_by(now, dims))


def usage_by(found: Sequence[Leaf], dims: Sequence[str], key: str = "model") -> dict[str, Usage]:
    place = dims.index(key) if key in dims else None
    usages: dict[str, Usage] = {}
    for leaf in found:
        name = leaf.values[place] if place is not None else ""
        usages[name] = usages.get(name, Usage()).plus(usage_of(dict(zip(LEAF_MEASURES, leaf.amounts, strict=True))))
    return usages


def usage_of(amounts: dict[str, int]) -> Usage:
    kept = {name: amounts[name] for name in Usage._fields if name in amounts}
    return Usage(**kept)._replace(output_tokens=amounts["output_tokens"] + amounts["reasoning_tokens"])


# --- what is kept


def _detail(
    odd: Odd,
    drivers: Sequence[Driver],
    alike: bool,
    parts: Decomposition | None,
    scope: Scope,
    before: datetime | None,
    user: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "drivers": [
            {
                "where": driver.where,
                "actual_nano": int(driver.actual),
                "expected_nano": int(driver.expected),
                "share_percent": int(driver.share * 100),
                "new": driver.new,
            }
            for driver in drivers
        ],
        "alike": alike,
        "user": user,
        "parts": parts.amounts if parts else None,
        "window": [scope.start.isoformat(), scope.end.isoformat()],
        "before": [before.isoformat(), (before + (scope.end - scope.start)).isoformat()] if before else None,
        "signal": odd.anomaly.signal,
        "course": odd.course._asdict(),
    }
