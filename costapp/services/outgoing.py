"""Requests to addresses that users typed: the only door to them.

Resolved once, every address judged (``core.targets``), and the connection goes to a judged address, so that a name
that resolves differently a moment later gains nothing. No redirects, no proxies of the environment, ten seconds and
64 KiB in all.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

import certifi
import urllib3
from django.conf import settings
from urllib3.connection import HTTPConnection, HTTPSConnection

from costapp.core.targets import Allowed, Refused, Target, judge, read_allowed, read_url

LIMIT_S = 10.0
ANSWER_LIMIT = 64 * 1024


class Unreachable(Exception):
    """Nothing came back, or not in time. The message names no path and no secret."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes  # cut at ANSWER_LIMIT; for the sender's own eyes, never shown to a user


def resolve(host: str, port: int) -> list[str]:
    """Every address of the host. Names are looked up by the system; tests put their own table here."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check(url: str) -> Target:
    """Raises Refused, with a sentence, for an address that would not be called. Used when a channel is saved."""
    target = read_url(url)
    _judged(target, LIMIT_S)
    return target


def post(url: str, body: bytes, headers: Mapping[str, str], *, limit_s: float = LIMIT_S) -> Answer:
    """Raises Refused or Unreachable."""
    deadline = time.monotonic() + limit_s
    target = read_url(url)
    address = _judged(target, limit_s)[0]
    connection = _connection(target, address, limit_s)
    held: list[socket.socket] = []  # the connection forgets its socket while the answer is still being read
    watchdog = threading.Timer(max(0.1, deadline - time.monotonic()), _cut_off, [connection, held])
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.connect()
        held.append(connection.sock)
        # Over TLS and in the Host header the name is said, while the connection goes to the judged address.
        connection.request(
            "POST", target.path, body, {**headers, "Host": _host_header(target), "User-Agent": "Costapp"},
            preload_content=False, decode_content=False,
        )  # fmt: skip
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, answered, _body(response))
    except (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        late = time.monotonic() >= deadline
        reason = f"no whole answer within {limit_s:.0f} seconds" if late else _in_words(error)
        raise Unreachable(f"{target.host}: {reason}.") from None
    finally:
        watchdog.cancel()
        connection.close()


def _body(response: urllib3.response.BaseHTTPResponse) -> bytes:
    """As much as came in time: the status was the answer."""
    try:
        return response.read(ANSWER_LIMIT, decode_content=False)
    except (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException):
        return b""


def _judged(target: Target, limit_s: float) -> list[str]:
    try:
        addresses = _resolve_in_time(target.host, target.port, limit_s)
    except (OSError, UnicodeError):
        raise Refused(f"The host {target.host} cannot be found.") from None
    return judge(target, addresses, allowed_targets(), own_servers())


def _resolve_in_time(host: str, port: int, limit_s: float) -> list[str]:
    """The system's look-up has no time limit of its own: a thread that is left behind ends by itself."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="resolve")
    try:
        return pool.submit(resolve, host, port).result(limit_s)
    except TookTooLong:
        raise Unreachable(f"{host}: the look-up of its address took longer than {limit_s:.0f} seconds.") from None
    finally:
        pool.shutdown(wait=False)


def allowed_targets() -> tuple[Allowed, ...]:
    return read_allowed(settings.ALLOW_PRIVATE_TARGETS)


def own_servers() -> list[tuple[str, int]]:
    """Database and broker by address: never to be called, listed or not."""
    found = []
    for url, default in ((settings.DATABASE_URL, 5432), (settings.CELERY_BROKER_URL, 6379)):
        parts = urlsplit(url)
        if parts.hostname and "%2f" not in parts.netloc.lower():
            port = parts.port or default
            found += [(address, port) for address in _own_addresses(parts.hostname, port)]
    return found


def _own_addresses(host: str, port: int) -> list[str]:
    try:
        return list(dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(host, port)))
    except OSError:
        return []


def _connection(target: Target, address: str, limit_s: float) -> HTTPConnection:
    if target.scheme == "http":
        return HTTPConnection(address, target.port, timeout=limit_s)
    # the context checks the certificate against the name
    return HTTPSConnection(
        address, target.port, timeout=limit_s, ssl_context=tls_context(), server_hostname=target.host
    )


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Trusts what the system trusts (SSL_CERT_FILE included) and the well-known authorities."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _host_header(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return host if target.port == {"https": 443, "http": 80}[target.scheme] else f"{host}:{target.port}"


def _cut_off(connection: HTTPConnection, held: list[socket.socket]) -> None:
    """Ends a connection that drips: each byte in time, the whole never."""
    for sock in held or filter(None, [connection.sock]):
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _in_words(error: Exception) -> str:
    """urllib3 wraps what went wrong: the innermost says it."""
    causes: list[BaseException | None] = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return "its certificate cannot be trusted"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "it does not take connections"
    if any(isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError) for cause in causes):
        return "no answer in time"
    return "the connection broke off"
