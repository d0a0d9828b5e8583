"""The data home: where it is, who may read it, and the secrets in it.

Nothing outside the home is created or changed; modes of parent directories are never touched.
"""

import fcntl
import os
import secrets
import shutil
import zlib
from pathlib import Path
from typing import IO

from costapp.runtime.errors import StartError

SPACE_NEEDED = 512 * 1024 * 1024  # bytes; a fresh PostgreSQL data directory with its WAL takes about 100 MB
SOCKET_PATH_LIMIT = 85  # bytes; a unix socket's path may have 103 (macOS), and the server appends its own name


def is_root() -> bool:
    return os.geteuid() == 0


def make_home(home: Path) -> None:
    """Create the home and prove that it can be written to.

    Root's home can be entered by others (not listed or read): the database's own account must get to its folder.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o711 if is_root() else 0o700)
        probe = home / ".writable"
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(home).free
    except OSError as error:
        raise StartError(
            f"Cannot write to the data home {home} ({error.strerror}): choose another with --home or COSTAPP_HOME."
        ) from error
    if free < SPACE_NEEDED:
        raise StartError(
            f"Only {free // 2**20} MB are free on the disk of {home} and {SPACE_NEEDED // 2**20} MB are needed:"
            " free some, or choose another with --home."
        )


def lock_home(home: Path) -> IO[str]:
    """Hold the home for this process; the lock ends with the process, however it ends."""
    lock = (home / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise StartError(
            f"Costapp is already running for {home} (process {holder}): stop it first, or use another --home and ports."
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner only from the first byte on."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def secret(path: Path, *, random_bytes: int = 32) -> str:
    """The secret kept in the file; made at first use."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(random_bytes))
    return path.read_text().strip()


def socket_dir(folder: Path) -> Path:
    """`folder`/run, or a short private folder when that path is too long for a unix socket."""
    path = folder / "run"
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        path = Path("/tmp") / f"costapp-{os.getuid()}-{zlib.crc32(os.fsencode(folder)):08x}"
    return path
