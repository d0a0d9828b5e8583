"""`make bench`: every measurement, one after the other, on servers of its own.

    python -m benchmarks [--quick] [--only NAME ...]

Starts a throw-away PostgreSQL unless DATABASE_URL names one (a database that may be filled and emptied), runs each
script with that, and repeats at the end which of them ran and how long they took. benchmarks/README.md says what
the figures mean.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import conditions
from costapp.runtime.postgres import Postgres


class Script(NamedTuple):
    name: str
    what: str
    quick: tuple[str, ...]  # options for a run of about a minute


SCRIPTS = (
    Script("ingest", "durable ingest against raw COPY of the same rows", ("--spans", "51200", "--rounds", "1")),
    Script("pricing", "the price function", ()),
    Script("attribution", "traces to charges to sums", ("--traces", "5000")),
    Script("repricing", "booked charges priced anew", ("--traces", "3000")),
    Script("pages", "page times with a full database", ("--inferences", "100000")),
    Script("rules", "alert rules: 1,000 rules x 1,000 features", ("--rules", "200", "--subjects", "500")),
    Script("gpu_hours", "GPU hours split, closed and read", ("--calls", "200000", "--stored", "50000")),
    Script("guard", "how long an app waits for the guard", ("--seconds", "10")),
    Script(
        "message", "from the span that crosses a limit to the message received", ("--rates", "0", "--incidents", "8")
    ),
    Script("forecast", "how far budget forecasts are off", ("--days", "60", "--scale", "0.1")),
    Script("gpu", "1,000 GPUs scraped every 15 seconds", ("--gpus", "400", "--seconds", "45")),
    Script("end_to_end", "all of it together, 200 OK to visible", ("--rates", "4000", "--seconds", "15")),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller and shorter: a minute or two instead of ten")
    parser.add_argument("--only", nargs="+", default=[], choices=[script.name for script in SCRIPTS], metavar="NAME")
    options = parser.parse_args()
    for line in conditions.lines():
        print(line)
    chosen = [script for script in SCRIPTS if not options.only or script.name in options.only]
    with database() as url:
        outcomes = [run(script, url, quick=options.quick) for script in chosen]
    print("\n" + "\n".join(outcomes))
    for line in conditions.lines():
        print(line)
    return int(any("FAILED" in outcome for outcome in outcomes))


def run(script: Script, url: str, *, quick: bool) -> str:
    """Run one script as a process of its own; the line for the summary."""
    if importlib.util.find_spec(f"benchmarks.{script.name}") is None:
        return f"{script.name:<12} not there"
    print(f"\n=== {script.name}: {script.what}", flush=True)
    started = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{script.name}", *(script.quick if quick else ())]
    code = subprocess.run(command, env=os.environ | {"DATABASE_URL": url}).returncode
    outcome = "done" if code == 0 else f"FAILED with exit code {code}"
    return f"{script.name:<12} {outcome}, {time.monotonic() - started:.0f} s"


@contextmanager
def database() -> Iterator[str]:
    """DATABASE_URL, else a server of its own with the settings of `make run`, migrated and with prices."""
    if url := os.environ.get("DATABASE_URL"):
        prepare(url)
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="costapp-bench-"))
    folder.chmod(0o711)  # as root the server runs under its own account
    server = Postgres(folder / "postgres")
    try:
        server.prepare()
        with (folder / "log").open("wb") as log:
            server.start(log)
            server.wait_ready()
            prepare(server.url())
            yield server.url()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def prepare(url: str) -> None:
    environment = os.environ | {"DATABASE_URL": url}
    for command in (("migrate", "-v0"), ("import_prices",), ("partitions",)):
        subprocess.run([sys.executable, "manage.py", *command], env=environment, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
