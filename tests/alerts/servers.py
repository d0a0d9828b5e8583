"""Real receivers on loopback: one that answers as Slack does, and a mail server."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Answers by the last part of the path; what came is in ``received``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.received: list[Received] = []
        self.slow_s = 0.0
        self.hold = threading.Event()  # /hold answers when it is set
        self.begun = threading.Event()

    def url(self, answer: str) -> str:
        return f"http://127.0.0.1:{self.port}/services/T0/B0/secret-part/{answer}"

    def answered(self, answer: str) -> list[Received]:
        return [each for each in self.received if each.path.endswith(answer)]


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, headers, body))
            receiver.begun.set()
            path = self.path.partition("?")[0]
            getattr(self, "answer_" + path.rsplit("/", 1)[-1].replace(".", "_"))()

        def reply(self, status: int, body: bytes = b"ok", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def answer_ok(self) -> None:
            self.reply(200)

        def answer_limited(self) -> None:
            self.reply(429, b"rate_limited", Retry_After="120")

        def answer_revoked(self) -> None:
            self.reply(404, b"no_service")

        def answer_archived(self) -> None:
            self.reply(410, b"channel_is_archived")

        def answer_invalid(self) -> None:
            self.reply(400, b"invalid_payload")

        def answer_broken(self) -> None:
            self.reply(500, b"<html>secret-part</html>")

        def answer_moved(self) -> None:
            self.reply(302, b"", Location=f"http://127.0.0.1:{receiver.port}/elsewhere/ok")

        def answer_huge(self) -> None:
            self.send_response(200)
            self.end_headers()
            for _ in range(4096):
                self.wfile.write(b"x" * 65536)

        def answer_drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            while not receiver.hold.wait(0.05):
                self.wfile.write(b"x")

        def answer_hold(self) -> None:
            receiver.hold.wait(30)
            self.reply(200)

        def answer_chat_postMessage(self) -> None:
            channel = json.loads(receiver.received[-1].body)["channel"]
            errors = {"#gone": "channel_not_found", "#later": "internal_error", "#long": "msg_too_long"}
            answer = {"ok": False, "error": errors[channel]} if channel in errors else {"ok": True, "ts": "1"}
            self.reply(200, json.dumps(answer).encode())

        def log_message(self, *args: Any) -> None:
            """Quiet."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

    return Handler


@contextmanager
def http_receiver() -> Iterator[Receiver]:
    receiver = Receiver(0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(receiver))
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Mailbox:
    """Takes mail; ``refuse`` maps a recipient to the answer it gets instead."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.refuse: dict[str, str] = {}
        self.refuse_data = ""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse_data:
            return self.refuse_data
        self.messages.append(envelope)
        return "250 Message accepted"


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    mailbox = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mailbox, port
    finally:
        controller.stop()


def eventually(condition: Any, limit_s: float = 10) -> None:
    """Waits for what another thread or process does."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
