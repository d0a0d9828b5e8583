"""The whole product for a measurement: `make run` in a folder of its own, on free ports, and its processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.ingest import free_port

READY_S = 180.0
_SIGN_IN = re.compile(r"Sign in\s+(\S+)\s+password\s+(\S+)")
_KEY = re.compile(r"Key\s+(\S+)")
_PARTS = (  # first match of the command line names the part
    ("postgres", "PostgreSQL"),
    ("valkey", "Valkey"),
    ("collectors", "collector"),
    ("granian", "web"),
    ("celery.*beat", "beat"),
    ("celery.*worker", "workers"),
    ("", "supervisor"),
)


class Stack(NamedTuple):
    """A running Costapp."""

    process: psutil.Process
    database_url: str
    http_port: int
    web_port: int
    key: str
    user: str
    password: str
    start_s: float  # from the command to the printed sign-in

    def memory_mib(self) -> dict[str, float]:
        """Proportional set size by part of the product: shared pages are counted once."""
        sums: dict[str, float] = defaultdict(float)
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                command = " ".join(process.cmdline())
                part = next(name for pattern, name in _PARTS if re.search(pattern, command))
                sums[part] += process.memory_full_info().pss / 2**20
            except psutil.Error:
                continue
        return dict(sums)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds spent so far, by part; of processes that still live."""
        sums: dict[str, float] = defaultdict(float)
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                command = " ".join(process.cmdline())
                part = next(name for pattern, name in _PARTS if re.search(pattern, command))
                times = process.cpu_times()
                sums[part] += times.user + times.system
            except psutil.Error:
                continue
        return dict(sums)


@contextmanager
def running() -> Iterator[Stack]:
    """Start everything, and remove it afterwards. SystemExit if it does not come up."""
    home = Path(tempfile.mkdtemp(prefix="costapp-bench-"))
    home.chmod(0o711)  # as root the database server runs under its own account
    ports = {name: free_port() for name in ("--port", "--otlp-http-port", "--otlp-grpc-port")}
    arguments = [part for name, port in ports.items() for part in (name, str(port))]
    outside = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "CELERY_BROKER_URL")}
    log = home / "output"
    command = [sys.executable, "-m", "costapp.runtime", "--home", str(home / "home"), *arguments]
    with log.open("wb") as output:
        process = psutil.Popen(command, env=outside, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield _ready(process, home / "home", log, ports)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def _ready(process: psutil.Process, home: Path, log: Path, ports: dict[str, int]) -> Stack:
    started = time.monotonic()
    while time.monotonic() - started < READY_S:
        text = log.read_text(encoding="utf-8", errors="replace")
        sign_in, key = _SIGN_IN.search(text), _KEY.search(text)
        if sign_in and key:
            variables = dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())
            start_s, (user, password) = time.monotonic() - started, sign_in.groups()
            http, web, url = ports["--otlp-http-port"], ports["--port"], variables["DATABASE_URL"]
            return Stack(process, url, http, web, key[1], user, password, start_s)
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    raise SystemExit(f"Costapp did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
