"""OTLP over HTTP: a granian (RSGI) application. Maps a request to Ingest.export and a Refusal to a response."""

import asyncio
import contextlib
import logging
from typing import Any

from collectors.auth import key_from_headers
from collectors.batch import LOGS, METRICS, TRACES
from collectors.errors import (
    BODY_TIMEOUT,
    NOT_FOUND,
    WRONG_METHOD,
    WRONG_TYPE,
    Refusal,
    bad_data,
    too_large,
)  # fmt: skip
from collectors.guard import PATH as GUARD_PATH
from collectors.guard import Guard
from collectors.ingest import REMOTE_WRITE, Ingest, Request
from collectors.limits import Hold

log = logging.getLogger("costapp.collectors")

PROTOBUF_TYPE = "application/x-protobuf"
JSON_TYPE = "application/json"
_PATHS = {
    f"{prefix}/v1/{signal}": signal
    for prefix in ("", "/api/public/otel")  # the second as Langfuse's SDKs have it
    for signal in (TRACES, METRICS, LOGS)
}
_REMOTE_WRITE = "/api/v1/write"  # Prometheus
_SCORES = "/api/public/scores"
_NOTHING_HERE = (
    "Nothing is here. OTLP goes to /v1/traces, /v1/metrics or /v1/logs, Prometheus remote-write to /api/v1/write."
)
_NO_SCORES = "Scores are not collected yet; traces are, at /api/public/otel/v1/traces."
_DISCARD_TIMES = 4  # a refused body is read up to this many times the limit
_DISCARD_SECONDS = 5
Headers = list[tuple[str, str]]


class HttpApp:
    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self.guard = Guard(ingest.settings, ingest.keys, ingest.counters)
        self.in_flight = 0

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            return
        self.in_flight += 1
        try:
            status, headers, body = await self._respond(scope, protocol)
            protocol.response_bytes(status, headers, body)
        finally:
            self.in_flight -= 1

    async def _respond(self, scope: Any, protocol: Any) -> tuple[int, Headers, bytes]:
        is_json = _media_type(scope) == JSON_TYPE
        try:
            return await self._route(scope, protocol, is_json)
        except Refusal as refusal:
            await self._discard_body(scope, protocol)
            return self._refused(refusal, is_json, is_text=scope.path.rstrip("/") == _REMOTE_WRITE)
        except (ConnectionError, EOFError):  # the client has gone; nobody reads this
            return self._refused(bad_data("client_gone", "The connection ended before the body did."), is_json)

    async def _route(self, scope: Any, protocol: Any, is_json: bool) -> tuple[int, Headers, bytes]:
        path = scope.path.rstrip("/") or "/"
        if path == GUARD_PATH and scope.method in {"GET", "HEAD"}:
            return await self.guard.respond(scope)
        if path in _PAGES:
            return await self._page(scope, path)
        signal = METRICS if path == _REMOTE_WRITE else _PATHS.get(path)
        if path == GUARD_PATH:
            raise Refusal(WRONG_METHOD, "wrong_method", "Use GET.")
        if signal is None and path != _SCORES:
            raise Refusal(NOT_FOUND, "not_found", _NOTHING_HERE)
        if scope.method != "POST":
            raise Refusal(WRONG_METHOD, "wrong_method", "Use POST.")
        key = await self._ingest.keys.authenticate(key_from_headers(scope.headers.get), scope.client.rsplit(":", 1)[0])
        if signal is None:
            raise Refusal(NOT_FOUND, "scores", _NO_SCORES)
        transport = REMOTE_WRITE if path == _REMOTE_WRITE else "http"
        _check_type(scope, transport)
        with self._ingest.noting(key, signal, transport), self._ingest.memory.hold() as hold:
            self._ingest.admit(key)
            body = await self._body(scope, protocol, hold)
            encoding = scope.headers.get("content-encoding") or ""
            request = Request(
                signal=signal, transport=transport, key=key, body=body, content_encoding=encoding, is_json=is_json
            )
            answer = await self._ingest.export(request, hold)
        self._ingest.counters.add(
            "requests_total", transport=transport, status="204" if transport == REMOTE_WRITE else "200"
        )
        if transport == REMOTE_WRITE:
            return 204, [], b""
        return 200, [("content-type", JSON_TYPE if is_json else PROTOBUF_TYPE)], answer

    async def _body(self, scope: Any, protocol: Any, hold: Hold) -> bytes:
        """The whole body, whether its length was announced or it comes in chunks."""
        limit = self._ingest.settings.body_bytes
        announced = scope.headers.get("content-length")
        try:
            async with asyncio.timeout(self._ingest.settings.body_seconds):
                if announced is None:
                    return await _chunks(protocol, limit, hold)
                size = int(announced)
                if size > limit:
                    raise too_large(limit)
                hold.add(size)
                return await protocol()  # type: ignore[no-any-return]
        except TimeoutError:
            raise Refusal(BODY_TIMEOUT, "body_timeout", "The body took too long to arrive.") from None

    async def _discard_body(self, scope: Any, protocol: Any) -> None:
        """Read what is left of a refused body: a client that is still sending would not see the answer otherwise."""
        if scope.headers.get("expect"):  # it waits for our word before it sends
            return
        left = _DISCARD_TIMES * self._ingest.settings.body_bytes
        with contextlib.suppress(Exception):  # read already, or the client has gone: nothing is left to read
            async with asyncio.timeout(_DISCARD_SECONDS):
                async for part in protocol:
                    left -= len(part)
                    if left < 0:
                        return

    def _refused(self, refusal: Refusal, is_json: bool, *, is_text: bool = False) -> tuple[int, Headers, bytes]:
        self._ingest.count_refusal(refusal, REMOTE_WRITE if is_text else "http")
        headers = [("content-type", "text/plain" if is_text else JSON_TYPE if is_json else PROTOBUF_TYPE)]
        if refusal.retry_after:
            headers.append(("retry-after", str(refusal.retry_after)))
        if refusal.kind is WRONG_METHOD:
            headers.append(("allow", refusal.message.removeprefix("Use ").removesuffix(".")))
        body = f"{refusal.message}\n".encode() if is_text else refusal.body(json=is_json)
        return refusal.kind.http_status, headers, body

    async def _page(self, scope: Any, path: str) -> tuple[int, Headers, bytes]:
        if scope.method not in {"GET", "HEAD"}:
            return 405, [("content-type", "text/plain"), ("allow", "GET")], b"Use GET.\n"
        if path == "/metrics":
            return 200, [("content-type", "text/plain; version=0.0.4")], self._ingest.counters.text().encode()
        if path == "/healthz":
            return 200, [("content-type", "text/plain")], b"ok\n"
        if await self._ingest.ready():
            return 200, [("content-type", "text/plain")], b"ready\n"
        return 503, [("content-type", "text/plain"), ("retry-after", "2")], b"The database is not reachable.\n"


_PAGES = {"/healthz", "/readyz", "/metrics"}


def _media_type(scope: Any) -> str:
    return (scope.headers.get("content-type") or "").partition(";")[0].strip().lower()


def _check_type(scope: Any, transport: str) -> None:
    """Refusal for bodies that cannot be read. A Prometheus that is told 415 goes back from remote-write 2.0 to 1.0."""
    if transport == REMOTE_WRITE:
        if _media_type(scope) != PROTOBUF_TYPE or "write.v2" in (scope.headers.get("content-type") or ""):
            message = f"Content-Type must be {PROTOBUF_TYPE}: remote-write 1.0 is read here."
            raise Refusal(WRONG_TYPE, "wrong_content_type", message)
    elif _media_type(scope) not in {PROTOBUF_TYPE, JSON_TYPE}:
        raise Refusal(WRONG_TYPE, "wrong_content_type", f"Content-Type must be {PROTOBUF_TYPE} or {JSON_TYPE}.")


async def _chunks(protocol: Any, limit: int, hold: Hold) -> bytes:
    parts: list[bytes] = []
    total = 0
    async for part in protocol:
        total += len(part)
        if total > limit:
            raise too_large(limit)
        hold.add(len(part))
        parts.append(part)
    return b"".join(parts)
