"""What a figure depends on: the machine, what else it was doing, and the versions in play."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path


def lines() -> Iterator[str]:
    """Two short lines to print above every measurement."""
    cores, load = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), os.getloadavg()
    yield f"{_processor()}, {cores} cores, {_memory_gib():.0f} GiB, load average {load[0]:.1f} {load[1]:.1f}"
    packages = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("psycopg", "granian", "Django"))
    yield f"Python {platform.python_version()}, {packages}, {platform.system()} {platform.release()}"


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
