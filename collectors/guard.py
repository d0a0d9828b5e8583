"""The guard: apps ask before they call a model, and are told to go on, to take care, or to stop.

`GET /api/v1/guard?feature=&user=&session=&trace=` with an ingest key. Answers come from memory: what is known about a
project is read again at most once a second, beside the event loop, while somebody asks. When nothing can be known,
the project's own default speaks: go on, unless it is set to fail closed. The answer is always JSON with a decision.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson
import psycopg

from collectors.auth import Keys, key_from_headers
from collectors.counters import Counters
from collectors.errors import UNAVAILABLE, Refusal
from collectors.limits import Rate
from collectors.settings import Settings
from costapp.core.guardrails import ASKABLE, Allowance, Answer, unknown
from costapp.core.money import format_nano
from costapp.storage.keys import KeyRecord
from costapp.storage.standing import ProjectStanding, load_standing

log = logging.getLogger("costapp.collectors")

PATH = "/api/v1/guard"
_MAX_QUERY_CHARS = 8_192
_PROJECTS = 10_000
_REFRESH_SECONDS = 1.0  # how old an answer may be while the database is there
_KEY_WAIT_SECONDS = 0.05  # how long the answer waits to have a known key confirmed
_FIRST_WAIT_SECONDS = 1.0  # how long the first question about a project waits
Headers = list[tuple[str, str]]


class Known(NamedTuple):
    """What was last read about a project, and when."""

    about: ProjectStanding
    read_at: float


class Guard:
    """Answers questions. Owns one connection, used by one thread beside the event loop."""

    def __init__(self, settings: Settings, keys: Keys, counters: Counters) -> None:
        self._settings = settings
        self._keys = keys
        self._counters = counters
        self._rate = Rate(settings.guard_per_second, "questions")
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="guard")
        self._connection: psycopg.Connection[Any] | None = None
        self._known: OrderedDict[int, Known] = OrderedDict()
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._failed_at = 0.0

    async def respond(self, scope: Any) -> tuple[int, Headers, bytes]:
        """Status, headers and body; never an exception."""
        began = time.perf_counter()
        try:
            status, answer, retry_seconds = await self._decide(scope)
        except Exception:  # an app must not fail because the guard does
            log.exception("A question to the guard failed.")
            status, answer, retry_seconds = 200, unknown("the guard failed; its log says why", closed=False), 0
        response = _response(status, answer, retry_seconds, scope, max_age=self._settings.guard_max_age)
        seconds = time.perf_counter() - began
        response[1].append(("server-timing", f"guard;dur={seconds * 1000:.3f}"))
        self._counters.add("guard_total", decision=answer.decision.word, known=str(answer.known).lower())
        self._counters.observe("guard_seconds", seconds)
        return response

    async def _decide(self, scope: Any) -> tuple[int, Answer, int]:
        """Status, answer, and after how many seconds to ask again (0: as the answer says)."""
        try:
            key = await self._key(key_from_headers(scope.headers.get), scope.client.rsplit(":", 1)[0])
        except Refusal as refusal:
            self._counters.add("rejected_total", reason=refusal.reason)
            return refusal.kind.http_status, unknown(refusal.message, closed=False), refusal.retry_after
        try:
            self._rate.check(key.key_id)
        except Refusal as refusal:
            self._counters.add("rejected_total", reason="guard_rate_limited")
            return 429, self._unknown(key, refusal.message), refusal.retry_after
        self._rate.charge(key.key_id, 1)
        question = _question(scope.query_string)
        if question is None:
            return 400, self._unknown(key, "the question is too long; ask with feature, user and session"), 0
        known = await self._look_up(key.project_id)
        if known is None:
            return 200, self._unknown(key, "the database does not answer"), 0
        return 200, known.about.standing.answer(question, datetime.now(UTC)), 0

    async def _key(self, plain: str | None, address: str) -> KeyRecord:
        """A usable key. One that was known before is believed while the database does not say otherwise."""
        remembered = self._keys.remembered(plain)
        if remembered is None:
            return await self._keys.authenticate(plain, address)
        try:
            async with asyncio.timeout(_KEY_WAIT_SECONDS):
                return await self._keys.authenticate(plain, address)
        except TimeoutError:
            return remembered
        except Refusal as refusal:
            if refusal.kind is not UNAVAILABLE:
                raise
            return remembered

    def _unknown(self, key: KeyRecord, reason: str) -> Answer:
        return unknown(reason, closed=self._fails_closed(key.project_id))

    def _fails_closed(self, project_id: int) -> bool:
        """As last read; a project that never was fails open."""
        known = self._known.get(project_id)
        return known is not None and known.about.fails_closed

    async def _look_up(self, project_id: int) -> Known | None:
        """What is known, read again in the background when it is a second old; None when it is too old to use."""
        known = self._known.get(project_id)
        now = time.monotonic()
        if known is None or now - known.read_at > _REFRESH_SECONDS:
            reading = self._read(project_id)
            is_usable = known is not None and now - known.read_at <= self._settings.guard_stale_seconds
            if not is_usable and now - self._failed_at > _REFRESH_SECONDS:
                await asyncio.wait({reading}, timeout=_FIRST_WAIT_SECONDS)
                known, now = self._known.get(project_id), time.monotonic()
        if known is None or now - known.read_at > self._settings.guard_stale_seconds:
            return None
        return known

    def _read(self, project_id: int) -> asyncio.Task[None]:
        """One reading per project at a time, however many ask."""
        task = self._asked.get(project_id)
        if task is None:
            task = self._asked[project_id] = asyncio.ensure_future(self._reading(project_id))
        return task

    async def _reading(self, project_id: int) -> None:
        read_at = time.monotonic()
        try:
            about = await asyncio.get_running_loop().run_in_executor(self._executor, self._load, project_id)
        except Exception as error:
            self._failed_at = time.monotonic()
            self._counters.add("guard_read_errors_total")
            log.warning("The guard could not read its state: %s", type(error).__name__)
        else:
            self._known[project_id] = Known(about, read_at)
            self._known.move_to_end(project_id)
            if len(self._known) > _PROJECTS:
                self._known.popitem(last=False)
        finally:
            del self._asked[project_id]

    def _load(self, project_id: int) -> ProjectStanding:
        try:
            return load_standing(self._connected(), project_id, now=datetime.now(UTC))
        except psycopg.OperationalError:  # the connection may simply be old: once more with a new one
            self._disconnect()
        try:
            return load_standing(self._connected(), project_id, now=datetime.now(UTC))
        except psycopg.Error:
            self._disconnect()
            raise

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._settings.database_url, autocommit=True, connect_timeout=2,
                application_name="costapp guard", options="-c statement_timeout=2s -c jit=off",
            )  # fmt: skip
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self._executor.submit(self._disconnect)
        self._executor.shutdown(wait=True)


def _question(query: str) -> dict[str, str] | None:
    """What the app says it is about to do; None if it is too long to be one."""
    if len(query) > _MAX_QUERY_CHARS:
        return None
    pairs = parse_qsl(query, errors="replace")
    return {name: value for name, value in reversed(pairs) if name in ASKABLE and value}


def _response(
    status: int, answer: Answer, retry_seconds: int, scope: Any, *, max_age: int
) -> tuple[int, Headers, bytes]:
    now = datetime.now(UTC)
    retry_after = retry_seconds or _seconds_until(answer.until, now)
    body = {
        "decision": answer.decision.word,
        "reason": answer.reason,
        "known": answer.known,
        "retry_after": retry_after or None,
        "budget": None if answer.budget is None else _budget(answer.budget),
    }
    headers = [("content-type", "application/json"), ("cache-control", _cache(status, answer, max_age))]
    if retry_after:
        headers.append(("retry-after", str(retry_after)))
    if not answer.known:
        headers.append(("costapp-guard", "unknown"))
    if status == 200:
        tag = _tag(body, answer.until)
        headers.append(("etag", tag))
        if tag in (scope.headers.get("if-none-match") or ""):
            return 304, headers, b""
    return status, headers, orjson.dumps(body)


def _seconds_until(until: datetime | None, now: datetime) -> int:
    return 0 if until is None else max(1, int((until - now).total_seconds()) + 1)


def _cache(status: int, answer: Answer, max_age: int) -> str:
    """Decisions may be kept for some seconds by the app that asked, by nobody in between."""
    return f"private, max-age={max_age}" if status == 200 and answer.known else "no-store"


def _tag(body: Mapping[str, Any], until: datetime | None) -> str:
    """Weak: the seconds to wait run down without a change of what is said."""
    said = orjson.dumps([body["decision"], body["reason"], body["known"], body["budget"], until])
    return f'W/"{hashlib.blake2b(said, digest_size=9).hexdigest()}"'


def _budget(budget: Allowance) -> dict[str, Any]:
    return {
        "name": budget.name,
        "left_nano": budget.left_nano,
        "left": format_nano(budget.left_nano),
        "limit_nano": budget.limit_nano,
        "limit": format_nano(budget.limit_nano),
        "period_end": budget.period_end.isoformat(timespec="seconds"),
    }
