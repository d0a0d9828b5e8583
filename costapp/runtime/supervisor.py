"""Starts servers and processes in order, keeps them up, stops them in order. One thread, one loop.

The loop is single-threaded on purpose: the kernel's parent-death signal watches the forking thread, and forking
a process with threads is not safe. The output of every child comes through a pipe that the same loop reads.
"""

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from costapp.runtime.console import Console, LogFile
from costapp.runtime.errors import StartError
from costapp.runtime.process import die_with_parent, kill_group, stop

TICK_S = 0.5
READY_LIMIT_S = 120
RECOVERY_LIMIT_S = 1800  # PostgreSQL replays its log after a crash
STEADY_S = 60  # a process that lived this long starts its back-off anew
LONGEST_PAUSE_S = 30
LAST_LINES = 5
LONGEST_LINE = 64 * 1024  # bytes


class StopRequested(Exception):
    """Ctrl-C or SIGTERM during the start."""


class Server(Protocol):
    """An embedded server: PostgreSQL or Valkey."""

    name: str
    title: str
    process: subprocess.Popen[bytes] | None

    def prepare(self) -> None: ...
    def start(self, output: int | IO[bytes]) -> subprocess.Popen[bytes]: ...
    def is_ready(self) -> bool: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Program:
    """One of our own processes, as data."""

    name: str
    command: Sequence[str | Path]
    is_ready: Callable[[], bool] = lambda: True
    # A worker asked to stop nicely waits for a broker that is dying too; late acknowledgement makes a kill safe.
    # Granian must be asked nicely: killed, it leaves the process that holds the port.
    death_signal: int = signal.SIGTERM
    stop_limit_s: float = 15
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Running:
    """A started child and what it said last."""

    name: str
    process: subprocess.Popen[bytes]
    since: float
    loud: bool  # its lines are shown, not only logged
    rest: bytes = b""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))


class Supervisor:
    def __init__(self, console: Console, *, logs: Path, directory: Path) -> None:
        self.console = console
        self.logs = logs
        self.directory = directory
        self.environment = dict(os.environ)
        self.servers: list[Server] = []
        self.programs: dict[str, Program] = {}
        self.running: dict[str, Running] = {}
        self.pauses: dict[str, float] = {}  # name -> when it may be started again
        self.failures: dict[str, int] = {}
        self.stopping = False
        self.starting = True
        self._log_files: dict[str, LogFile] = {}
        self._selector = selectors.DefaultSelector()
        logs.mkdir(mode=0o700, exist_ok=True)

    # --- signals

    def listen(self) -> None:
        """From here on Ctrl-C, SIGTERM and SIGHUP ask for an ordered stop."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ, None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the loop

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self.stopping:
            return
        self.stopping = True
        if self.starting:
            raise StopRequested

    # --- start

    def start_server(self, server: Server) -> None:
        server.prepare()
        self._launch_server(server)
        self.servers.append(server)
        self._wait(server.name, server.is_ready, limit_s=RECOVERY_LIMIT_S)

    def _launch_server(self, server: Server) -> None:
        process = server.start(subprocess.PIPE)
        self._watch(server.name, process, loud=False)

    def run_once(self, name: str, command: Sequence[str | Path]) -> None:
        """A step of the start that ends by itself; its lines are shown as they are."""
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, cwd=self.directory, env=self.environment,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )  # fmt: skip
        try:
            code = process.wait()
        except StopRequested:
            stop(process, signal.SIGTERM, limit_s=10)
            raise
        if code:
            raise StartError(f"The step {name!r} failed; what it said is above.")

    def start_program(self, program: Program) -> None:
        self.programs[program.name] = program
        self._launch(program)

    def wait_program(self, program: Program) -> None:
        self._wait(program.name, program.is_ready, limit_s=READY_LIMIT_S)

    def _launch(self, program: Program) -> None:
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            env={**self.environment, **program.environment},
            start_new_session=True,
            preexec_fn=die_with_parent(program.death_signal),
        )
        self._watch(program.name, process, loud=True)

    def _watch(self, name: str, process: subprocess.Popen[bytes], *, loud: bool) -> None:
        running = Running(name, process, time.monotonic(), loud)
        self.running[name] = running
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
            self._selector.register(process.stdout, selectors.EVENT_READ, running)

    def _wait(self, name: str, is_ready: Callable[[], bool], *, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        child = self.running[name]
        while not is_ready():
            self._pump(0.05)
            if child.process.poll() is not None:
                self._pump(0)
                raise StartError(f"{name} did not start. {self._last_words(child)}")
            if time.monotonic() > deadline:
                raise StartError(f"{name} did not get ready within {limit_s:.0f} s. {self._last_words(child)}")

    def _last_words(self, child: Running) -> str:
        words = " / ".join(child.last_lines) or "It said nothing."
        return f"Its last words: {words} (log: {self.logs / child.name}.log)"

    # --- keep up

    def keep_up(self) -> None:
        """Until a signal asks to stop."""
        self.starting = False
        while not self.stopping:
            self._pump(TICK_S)
            for server in self.servers:
                self._revive(server.name, partial(self._launch_server, server))
            for program in self.programs.values():
                self._revive(program.name, partial(self._launch, program))

    def _revive(self, name: str, launch: Callable[[], None]) -> None:
        if self.running[name].process.poll() is None or not self._may_start(name):
            return
        try:
            launch()
        except OSError as error:  # no memory, no file handles, a missing binary: later perhaps
            self.console.notice(f"{name} cannot be started ({error}); trying again in {LONGEST_PAUSE_S} s")
            self.pauses[name] = time.monotonic() + LONGEST_PAUSE_S

    def _may_start(self, name: str) -> bool:
        """Notes a death once, then lets the pause pass: 1 s, 2 s, 4 s ... 30 s while it keeps dying young."""
        now = time.monotonic()
        if name not in self.pauses:
            child = self.running[name]
            kill_group(child.process.pid)
            self.failures[name] = 0 if now - child.since > STEADY_S else self.failures.get(name, 0) + 1
            pause = min(LONGEST_PAUSE_S, 2 ** self.failures[name] / 2)
            self.pauses[name] = now + pause
            self.console.notice(f"{name} ended ({_how(child.process.returncode)}); starting it again in {pause:.0f} s")
        if now < self.pauses[name]:
            return False
        del self.pauses[name]
        return True

    # --- stop

    def stop_all(self) -> None:
        """Programs first, all at once; then servers, the last started first. Nothing is left behind."""
        self.stopping = True
        programs = [(self.programs[name], self.running[name].process) for name in self.programs]
        for _, process in programs:
            if process.poll() is None:
                process.terminate()
        asked = time.monotonic()
        for program, process in programs:
            while process.poll() is None and time.monotonic() < asked + program.stop_limit_s:
                self._pump(0.1)
            kill_group(process.pid)
            process.wait()
        for server in reversed(self.servers):
            server.stop()
        self._pump(0)
        self.programs.clear()
        self.servers.clear()
        self._close_files()

    def _close_files(self) -> None:
        for child in self.running.values():
            if child.process.stdout is not None and not child.process.stdout.closed:
                self._forget(child)
        for log in self._log_files.values():
            log.close()
        self._log_files.clear()

    # --- output

    def _pump(self, timeout_s: float) -> None:
        """Read what children said; also the loop's only place to sleep."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                os.read(key.fd, 4096)  # a signal came
            else:
                self._read(key.data, key.fd)

    def _read(self, child: Running, fd: int) -> None:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._forget(child)
            return
        *lines, child.rest = (child.rest + data).split(b"\n")
        if len(child.rest) > LONGEST_LINE:
            lines, child.rest = [*lines, child.rest], b""
        for line in lines:
            self._line(child, line)

    def _forget(self, child: Running) -> None:
        """Nobody writes to this pipe any more."""
        assert child.process.stdout is not None
        self._selector.unregister(child.process.stdout)
        child.process.stdout.close()

    def _line(self, child: Running, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        if child.name not in self._log_files:
            self._log_files[child.name] = LogFile(self.logs / f"{child.name}.log")
        self._log_files[child.name].write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())
        child.last_lines.append(text)
        if child.loud:
            self.console.child(child.name, text)


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
