"""Finds or installs the Chromium that browser tests drive: ``python -m tests.browser_setup`` (part of `make test`).

Order: COSTAPP_CHROMIUM, one on PATH, one that Playwright downloaded; else Debian's package when we are root.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Path of a browser, or None."""
    named = os.environ.get("COSTAPP_CHROMIUM")
    if named:
        return named
    for name in NAMES:
        if path := shutil.which(name):
            return path
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache/ms-playwright")
    found = sorted(cache.glob("chromium-*/chrome-linux*/chrome"))
    return str(found[-1]) if found else None


def install() -> None:
    """By apt as root; nothing is downloaded from anywhere else."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"],
    ):
        subprocess.run(command, env=environment, check=True)


def main() -> int:
    if find():
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stdout.write("No Chromium found: installing Debian's package for the browser tests.\n")
        install()
        return 0
    if os.environ.get("CI"):
        sys.stderr.write("costapp: CI needs a Chromium: run as root on Debian, or name one in COSTAPP_CHROMIUM.\n")
        return 1
    sys.stderr.write(
        "costapp: NO CHROMIUM FOUND, BROWSER TESTS WILL BE SKIPPED. Install the package `chromium`,"
        " or name a browser in COSTAPP_CHROMIUM.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
