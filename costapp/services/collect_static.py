"""Collects static files with their hash in the name, only when they changed since the last start."""

import hashlib
from pathlib import Path

from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

STAMP = ".collected"


def collect_if_changed(root: Path) -> bool:
    """Into STATIC_ROOT, which is `root`; True when there was something to do.

    The stamp is written last, so that an interrupted run is repeated.
    """
    state = _state()
    stamp = root / STAMP
    if stamp.exists() and stamp.read_text() == state:
        return False
    call_command("collectstatic", interactive=False, verbosity=0, clear=root.exists())
    stamp.write_text(state)
    return True


def _state() -> str:
    """Changes when any source file does: names, sizes and times of change."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for name, storage in finder.list([]):
            about = Path(storage.path(name)).stat()
            digest.update(f"{name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()
