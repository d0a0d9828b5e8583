"""Who is sending: ingest keys, looked up by SHA-256 and believed for some seconds.

Revoking or expiring a key works within `key_cache_seconds` (expiry at once). A key that is known
but may not be used is refused with 403, anything else with 401. Keys never appear in logs or answers.
"""

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg

from collectors.counters import Counters
from collectors.errors import KEY_REFUSED, NO_KEY, TOO_FAST, Refusal, unavailable
from collectors.settings import Settings
from costapp.storage.keys import KeyRecord, find_key, touch_keys

_MAX_KEY_CHARS = 200
_CACHED_KEYS = 10_000
_UNKNOWN_SECONDS = 3.0  # a key that has just been created must soon work
_ADDRESSES = 10_000

Header = Callable[[str], str | None]


def key_from_headers(header: Header) -> str | None:
    """The key in `Authorization: Bearer`, in `x-api-key`, or as the password of `Authorization: Basic`."""
    authorization = header("authorization") or ""
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        return _password(credentials.strip())
    return header("x-api-key")


def _password(credentials: str) -> str | None:
    """Langfuse SDKs send public:secret; the key is the secret."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return None


def _hash(plain: str) -> str:
    return hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()


def _ignore_failure(task: "asyncio.Task[KeyRecord | None]") -> None:
    """Looking a key up ahead of time failed: whoever needs it later asks again."""
    if not task.cancelled():
        task.exception()


class Keys:
    """Cached key lookups. Owns one connection, used by one thread beside the event loop."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._connection: psycopg.Connection[Any] | None = None
        self._cache: dict[str, tuple[float, KeyRecord | None]] = {}
        self._asked: dict[str, asyncio.Task[KeyRecord | None]] = {}
        self._failures = Failures(settings.auth_failures_per_minute)
        self._used: dict[int, datetime] = {}

    async def authenticate(self, plain: str | None, address: str) -> KeyRecord:
        """The record of a usable key; Refusal 401, 403, 429 or 503 otherwise."""
        if self._failures.exceeded(address):
            raise Refusal(TOO_FAST, "auth_failures", "Too many wrong keys from this address.", retry_seconds=60)
        record = await self._find(plain) if plain else None
        if record is None:
            self._failures.add(address)
            raise Refusal(NO_KEY, "no_key" if not plain else "wrong_key", _HELP)
        if record.revoked_at is not None:
            raise Refusal(KEY_REFUSED, "key_revoked", "This ingest key was revoked. Create a new one in Costapp.")
        now = datetime.now(UTC)
        if record.expires_at is not None and record.expires_at <= now:
            raise Refusal(KEY_REFUSED, "key_expired", "This ingest key has expired. Create a new one in Costapp.")
        self._used[record.key_id] = now
        return record

    async def _find(self, plain: str) -> KeyRecord | None:
        if len(plain) > _MAX_KEY_CHARS:
            return None
        key_hash = _hash(plain)
        cached = self._cache.get(key_hash)
        left = cached[0] - time.monotonic() if cached is not None else 0.0
        if cached is not None and left > 0:
            if left < self._settings.key_cache_seconds / 2 and cached[1] is not None:
                self._asking(key_hash).add_done_callback(_ignore_failure)  # known keys in use never wait
            return cached[1]
        return await asyncio.shield(self._asking(key_hash))

    def _asking(self, key_hash: str) -> "asyncio.Task[KeyRecord | None]":
        """Many requests may wait for one answer."""
        task = self._asked.get(key_hash)
        if task is None:
            task = self._asked[key_hash] = asyncio.ensure_future(self._ask(key_hash))
        return task

    def remembered(self, plain: str | None) -> KeyRecord | None:
        """What was last known of a key, however long ago: for answers that need no more than its project."""
        if not plain or len(plain) > _MAX_KEY_CHARS:
            return None
        return self._cache.get(_hash(plain), (0.0, None))[1]

    async def _ask(self, key_hash: str) -> KeyRecord | None:
        try:
            record = await asyncio.get_running_loop().run_in_executor(self._executor, self._look_up, key_hash)
        except psycopg.Error:
            raise unavailable("database_away", "Keys cannot be checked at the moment.", retry_seconds=2) from None
        finally:
            del self._asked[key_hash]
        if len(self._cache) >= _CACHED_KEYS:
            self._cache.clear()
        seconds = _UNKNOWN_SECONDS if record is None else float(self._settings.key_cache_seconds)
        self._cache[key_hash] = (time.monotonic() + seconds, record)
        return record

    def _look_up(self, key_hash: str) -> KeyRecord | None:
        try:
            return find_key(self._connected(), key_hash)
        except psycopg.OperationalError:  # the connection may simply be old: once more with a new one
            self._disconnect()
            return find_key(self._connected(), key_hash)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._settings.database_url, autocommit=True, connect_timeout=3,
                application_name="costapp collector keys", options="-c statement_timeout=3s",
            )  # fmt: skip
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def note_use(self) -> None:
        """Write down when keys were last used. Called now and then; a database outage loses only that."""
        used, self._used = self._used, {}
        if used:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._touch, used)

    def _touch(self, used: dict[int, datetime]) -> None:
        try:
            touch_keys(self._connected(), used)
        except psycopg.Error:
            self._disconnect()

    async def check(self, statement: Callable[[psycopg.Connection[Any]], Any]) -> Any:
        """Run a small query on this connection; psycopg.Error if the database is away."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, statement)

    def _run(self, statement: Callable[[psycopg.Connection[Any]], Any]) -> Any:
        try:
            return statement(self._connected())
        except psycopg.Error:
            self._disconnect()
            raise

    def close(self) -> None:
        self._executor.submit(self._disconnect)
        self._executor.shutdown(wait=True)


class Failures:
    """Wrong keys per address and minute."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minute = 0
        self._counts: dict[str, int] = {}

    def exceeded(self, address: str) -> bool:
        return bool(self._limit) and self._current().get(address, 0) >= self._limit

    def add(self, address: str) -> None:
        counts = self._current()
        if len(counts) < _ADDRESSES or address in counts:
            counts[address] = counts.get(address, 0) + 1

    def _current(self) -> dict[str, int]:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        return self._counts


_HELP = (
    "No valid ingest key. Send it as 'Authorization: Bearer ca_ing_...' or 'x-api-key: ca_ing_...' "
    "(OTEL_EXPORTER_OTLP_HEADERS=x-api-key=ca_ing_...). Keys are created in Costapp under Connect an app."
)
