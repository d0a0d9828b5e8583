"""What the person at the terminal sees, and the bounded log files that keep the rest."""

import os
import sys
import time
from pathlib import Path
from typing import TextIO

LOG_BYTES = 5 * 1024 * 1024  # per file; one older file is kept beside it
NAME_WIDTH = 9


class Console:
    """Short lines: steps of the start with their time, then what the processes say, prefixed with their name."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self.stream = stream
        self.coloured = stream.isatty() and "NO_COLOR" not in os.environ
        unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self.tick, self.rule, self.bar = ("✓", "─", "│") if unicode else ("ok", "-", "|")
        self.since = time.monotonic()

    def say(self, text: str = "") -> None:
        try:
            self.stream.write(text + "\n")
            self.stream.flush()
        except OSError:  # the terminal is gone; what runs must still be kept up, or stopped in order
            return

    def step(self, title: str, detail: str = "") -> None:
        """One finished step, with the seconds since the one before."""
        now = time.monotonic()
        self.say(f"  {self._paint('32', self.tick)} {title:<34} {now - self.since:5.1f} s  {detail}".rstrip())
        self.since = now

    def child(self, name: str, line: str) -> None:
        self.say(f"{self._paint('36', f'{name:<{NAME_WIDTH}}')} {self.bar} {line}")

    def notice(self, text: str) -> None:
        self.say(f"{time.strftime('%H:%M:%S')} {text}")

    def box(self, lines: list[str]) -> None:
        edge = self.rule * 78
        self.say("\n".join(["", edge, *(f"  {line}".rstrip() for line in lines), edge, ""]))

    def error(self, text: str) -> None:
        sys.stderr.write(f"costapp: {text}\n")

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.coloured else text


class LogFile:
    """Appends lines; when the file is full it becomes NAME.log.1, replacing the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = open(path, "ab", buffering=0, opener=_private)

    def write(self, data: bytes) -> None:
        try:
            self.file.write(data)
            if self.file.tell() > LOG_BYTES:
                self._turn()
        except OSError:  # a full disk must not stop the processes that are being logged
            return

    def close(self) -> None:
        self.file.close()

    def _turn(self) -> None:
        self.file.close()
        self.path.replace(self.path.with_name(self.path.name + ".1"))
        self.file = open(self.path, "ab", buffering=0, opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
