"""The guarded request: resolved once, every address on the operator's list, connected to such an address.

No redirects, no proxies, one deadline for everything, limits on the answer before and after decompression. What comes
back is never shown; people see the status and a sentence.
"""

import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from collectors.scrape.targets import Endpoint
from costapp.core.scraping import judge_scrape
from costapp.core.targets import Address, Allowed, Target

_CHUNK = 64 * 1024
_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"


class Failed(Exception):
    """Nothing usable came back; the message is a sentence without anything of the answer."""


class Rules(NamedTuple):
    """What may be called, and how much may come back."""

    allowed: Sequence[Allowed]
    own: frozenset[tuple[Address, int]]  # Costapp's own servers: never
    answer_bytes: int


def fetch(endpoint: Endpoint, rules: Rules, *, authorization: str, timeout_s: float) -> bytes:
    """The text of an endpoint. Refused or Failed."""
    deadline = time.monotonic() + timeout_s
    target = endpoint.target
    address = checked(target, rules)[0]
    connection = _connection(target, address, timeout_s)
    held: list[Any] = []  # the connection forgets its socket while the answer is still being read
    responses: list[Any] = []
    watchdog = threading.Timer(max(0.05, deadline - time.monotonic()), _cut_off, [connection, held])
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.connect()
        held.append(connection.sock)
        headers = {"Host": endpoint.name, "Accept": _ACCEPT, "Accept-Encoding": "gzip", "User-Agent": "Costapp",
                   "X-Prometheus-Scrape-Timeout-Seconds": f"{timeout_s:g}"}  # fmt: skip
        if authorization:
            headers["Authorization"] = authorization
        connection.request("GET", target.path, headers=headers, preload_content=False, decode_content=False)
        response = connection.getresponse()
        responses.append(response)
        if response.status != 200:
            raise Failed(_meaning(response.status))
        body = _body(response, rules.answer_bytes)
        if response.headers.get("content-encoding", "").lower() == "gzip":
            body = _gunzip(body, rules.answer_bytes)
        return body
    except (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        late = time.monotonic() >= deadline
        raise Failed(f"No whole answer within {timeout_s:g} seconds." if late else _in_words(error)) from None
    finally:
        watchdog.cancel()
        for thing in (*responses, connection, *held):
            thing.close()


def checked(target: Target, rules: Rules) -> list[str]:
    """The addresses of the host, if every one of them may be called."""
    try:
        entries = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Failed("The host cannot be found.") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    return judge_scrape(target, addresses, rules.allowed, rules.own)


def _connection(target: Target, address: str, timeout_s: float) -> HTTPConnection:
    if target.scheme == "http":
        return HTTPConnection(address, target.port, timeout=timeout_s)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return HTTPSConnection(
        address, target.port, timeout=timeout_s, ssl_context=context, server_hostname=target.host,
    )  # fmt: skip


def _cut_off(connection: HTTPConnection, held: list[Any]) -> None:
    """End whatever is being waited for: a sender of one byte a second would otherwise never be too slow."""
    for sock in [*held, connection.sock]:
        with suppress(OSError, AttributeError):
            sock.shutdown(socket.SHUT_RDWR)


def _body(response: Any, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.stream(_CHUNK, decode_content=False):
        size += len(part)
        if size > limit:
            raise Failed(f"The answer is larger than {limit} bytes.")
        parts.append(part)
    return b"".join(parts)


def _gunzip(body: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(31)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error:
        raise Failed("The answer says it is gzip and is not.") from None
    if len(plain) > limit:
        raise Failed(f"The answer is larger than {limit} bytes.")
    if not stream.eof:
        raise Failed("The answer ended too early.")
    return plain


def _meaning(status: int) -> str:
    if 300 <= status < 400:
        return f"It answered with a redirect ({status}), which is not followed. Enter the final address."
    if status in {401, 403}:
        return f"It answered {status}: check user name, password or token."
    return f"It answered {status}."


def _in_words(error: Exception) -> str:
    cause = error.__cause__ or error
    if isinstance(error, ssl.SSLError) or isinstance(cause, ssl.SSLError):
        return "Its certificate is not trusted, or it does not speak TLS."
    if isinstance(error, urllib3.exceptions.NewConnectionError | ConnectionRefusedError):
        return "Nothing answers there."
    return "The connection broke off."
