"""A TCP door in front of the test database that can be shut and opened again."""

import contextlib
import socket
import threading
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.collectors.conftest import free_port


class Proxy:
    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._host, self._target_port = conn.info.host, conn.info.port
        self._port = free_port()
        self._pairs: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def __enter__(self) -> "Proxy":
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def url(self, database_url: str) -> str:
        """The same database, through this door."""
        known = conninfo_to_dict(database_url)
        return make_conninfo(**known | {"host": "127.0.0.1", "port": self._port, "connect_timeout": 2})

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Nobody gets in, and those inside are thrown out."""
        listener, self._listener = self._listener, None
        for each in [listener, *self._pairs]:
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._pairs.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = self._connect()
                self._pairs += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _connect(self) -> socket.socket:
        if self._host.startswith("/"):
            far = socket.socket(socket.AF_UNIX)
            far.connect(f"{self._host}/.s.PGSQL.{self._target_port}")
            return far
        return socket.create_connection((self._host, self._target_port))

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
