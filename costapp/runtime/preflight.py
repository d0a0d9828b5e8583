"""Checks before anything is started. Each failure is one sentence that says what to change."""

import os
import re
import signal
import socket
import time
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from costapp.runtime.errors import StartError
from costapp.runtime.postgres import OLDEST_MAJOR
from costapp.runtime.process import HOME_MARK

BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "valkey", "valkeys", "sentinel", "amqp", "amqps")
CONNECT_LIMIT_S = 5
LEFTOVER_LIMIT_S = 30


def check_port(host: str, port: int, *, what: str, setting: str) -> None:
    """That we can listen there."""
    if not 0 < port < 65536:
        raise StartError(f"{setting} is {port}, which is not a port number (1 to 65535).")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except PermissionError as error:
        raise StartError(f"Port {port} ({what}) is only for root: choose one above 1023 with {setting}.") from error
    except OSError as error:
        raise StartError(
            f"Port {port} ({what}) on {host} cannot be used ({error.strerror}): stop what uses it,"
            f" or choose another with {setting}."
        ) from error


def check_database(url: str) -> None:
    """That DATABASE_URL names a PostgreSQL that lets us in and is new enough. Never repeats the password."""
    import psycopg

    parts = _split("DATABASE_URL", url, example="postgresql://user:password@host:5432/costapp")
    if parts.scheme not in ("postgresql", "postgres"):
        raise StartError(f"DATABASE_URL begins with {parts.scheme!r}, but Costapp runs on PostgreSQL: postgresql://...")
    where = f"{parts.hostname or 'localhost'}:{parts.port or 5432}"
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_LIMIT_S) as connection:
            version = connection.info.server_version
    except psycopg.ProgrammingError as error:
        raise StartError(f"DATABASE_URL cannot be read: {_one_line(error)}") from error
    except psycopg.OperationalError as error:
        raise StartError(_database_refusal(str(error), where=where)) from error
    if version < OLDEST_MAJOR * 10000:
        raise StartError(
            f"The server of DATABASE_URL is PostgreSQL {version // 10000}; Costapp needs {OLDEST_MAJOR} or newer."
        )


def _database_refusal(message: str, *, where: str) -> str:
    if "password authentication failed" in message or "no password supplied" in message:
        return f"The PostgreSQL at {where} refuses the user or password of DATABASE_URL."
    if missing := re.search(r'database "(.*?)" does not exist', message):
        return f"The PostgreSQL at {where} has no database {missing[1]!r}: create it (createdb {missing[1]})."
    if missing := re.search(r'role "(.*?)" does not exist', message):
        return f"The PostgreSQL at {where} has no user {missing[1]!r}: correct DATABASE_URL."
    return f"No PostgreSQL answers at {where} (DATABASE_URL): {_one_line(message)}"


def check_broker(url: str) -> None:
    """That CELERY_BROKER_URL names a broker that lets us in."""
    import kombu

    parts = _split("CELERY_BROKER_URL", url, example="redis://host:6379/0 or amqp://user:password@host:5672//")
    if parts.scheme not in BROKER_SCHEMES:
        raise StartError(
            f"CELERY_BROKER_URL begins with {parts.scheme!r}; supported are redis://, rediss://, valkey:// and amqp://."
        )
    where = f"{parts.hostname}:{parts.port}" if parts.hostname and parts.port else parts.hostname or parts.path
    try:
        with kombu.Connection(url, connect_timeout=CONNECT_LIMIT_S) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_LIMIT_S)
            connection.default_channel.client.ping() if parts.scheme.startswith(("redis", "valkey")) else None
    except Exception as error:  # every transport has errors of its own, and each means the same here
        raise StartError(f"No broker answers at {where} (CELERY_BROKER_URL): {_one_line(error)}") from error


def _split(setting: str, url: str, *, example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise StartError(f"{setting} cannot be read ({error}); it looks like {example}.") from error
    if not parts.scheme or "//" not in url:
        raise StartError(f"{setting} cannot be read; it looks like {example}.")
    return parts


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def end_leftovers(home: Path) -> int:
    """End processes of an earlier run of this home (Linux). Returns how many there were.

    The kernel ends them with their supervisor; what can stay is a child's child whose parent was killed too.
    """
    asked = leftovers(home)
    for pid in asked:
        # PostgreSQL reads SIGTERM as "wait for all clients"
        _signal(pid, signal.SIGINT if _name(pid) == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + LEFTOVER_LIMIT_S
    while left := leftovers(home):
        if time.monotonic() > deadline:
            for pid in left:
                _signal(pid, signal.SIGKILL)
        time.sleep(0.05)
    return len(asked)


def leftovers(home: Path) -> list[int]:
    """Live processes that carry the mark of this home. A zombie has no environment, so it is none."""
    mark = f"{HOME_MARK}={home}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        pid = int(entry.parent.name)
        if mark in environment and pid != os.getpid():
            found.append(pid)
    return sorted(found)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
