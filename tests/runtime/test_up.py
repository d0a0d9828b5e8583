"""The whole stack by one command: a real start, faults, an ordered stop. One start serves several tests."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
import pytest

from costapp.runtime.preflight import leftovers

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT_S = 90
# What this run's own environment would otherwise decide.
NOT_INHERITED = ("DATABASE_URL", "CELERY_BROKER_URL", "COSTAPP_SECRET_KEY", "COSTAPP_HOME")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stack:
    """`make run` without make, in a home of its own; collects what it says."""

    def __init__(self, home):
        self.home = home
        self.web, self.http, self.grpc = free_port(), free_port(), free_port()
        self.said = []

    def start(self, *more):
        environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        environment["http_proxy"] = "http://127.0.0.1:1"  # a proxy of the shell must not come between
        self.said = []
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--home", self.home, "--port", str(self.web),
             "--otlp-http-port", str(self.http), "--otlp-grpc-port", str(self.grpc), *more],
            cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.until(lambda: "Stop with Ctrl-C." in self.text)
        return self

    def _read(self):
        with self.process.stdout as lines:
            for line in lines:
                self.said.append(line)

    @property
    def text(self):
        return "".join(self.said)

    def until(self, condition):
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, self.text
            assert self.process.poll() is None or "Stopped." in self.text, self.text
            time.sleep(0.05)

    def end(self, number):
        self.process.send_signal(number)
        code = self.process.wait(LIMIT_S)
        self.reader.join(LIMIT_S)
        return code

    def get(self, port, path, headers=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()
        except OSError as error:
            return 0, str(error)

    def send(self, key, span_id):
        """One span over OTLP/JSON; True when it was acknowledged."""
        now = time.time_ns()
        span = {
            "traceId": f"{span_id:032x}", "spanId": f"{span_id:016x}", "name": "chat", "kind": 3,
            "startTimeUnixNano": str(now - 1000), "endTimeUnixNano": str(now),
        }  # fmt: skip
        body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/v1/traces", body,
            {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status == 200
        except OSError:
            return False

    def pids(self, *words):
        """Processes of this home whose command line has all the words; the first is the parent of the others."""
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in leftovers(self.home)}
        return [pid for pid, command in commands.items() if all(word in command for word in words)]

    def database_url(self):
        return dict(line.split("=", 1) for line in (self.home / "env").read_text().splitlines())["DATABASE_URL"]

    def spans(self):
        with psycopg.connect(self.database_url()) as connection:
            return connection.execute("select count(*) from span").fetchone()[0]


@pytest.fixture(scope="module")
def stack():
    with tempfile.TemporaryDirectory(prefix="costapp-test-") as folder:
        home = Path(folder) / "home"
        Path(folder).chmod(0o711)
        stack = Stack(home).start()
        stack.first_words = stack.text
        yield stack
        if stack.process.poll() is None:
            stack.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def key(stack):
    return re.search(r"ca_ing_\S+", stack.first_words)[0]


def test_the_first_start_tells_page_account_and_key(stack, key):
    assert f"Open      http://localhost:{stack.web}/" in stack.first_words
    assert re.search(r"Sign in   admin   password  \S{12,}", stack.first_words)
    assert stack.get(stack.web, "/readyz") == (200, '{"status": "ok"}')


def test_static_files_are_cached_for_ever_by_the_hash_in_their_name(stack):
    manifest = json.loads((stack.home / "static" / "staticfiles.json").read_text())["paths"]
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.web}/static/{manifest['admin/css/base.css']}") as answer:
        assert "immutable" in answer.headers["Cache-Control"]


def test_secrets_are_private_and_on_no_command_line(stack, key):
    for name in ("env", "secret-key", "field-key", "postgres/password"):
        assert (stack.home / name).stat().st_mode & 0o077 == 0
    assert not (stack.home / "first-sign-in.json").exists()
    secrets = [key, (stack.home / "secret-key").read_text(), (stack.home / "postgres/password").read_text()]
    commands = "".join(path.read_text() for path in map(Path, command_lines(stack)))
    assert "costapp.celery" in commands
    assert [secret for secret in secrets if secret in commands] == []


def command_lines(stack):
    return [f"/proc/{pid}/cmdline" for pid in leftovers(stack.home)]


def test_manage_py_finds_the_running_instance_by_its_home(stack):
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c",
         "from costapp.models import Project; print(Project.objects.get().slug)"],
        cwd=CHECKOUT, env={**environment, "COSTAPP_HOME": str(stack.home)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "default\n", done.stderr


PARTS = [("-m collectors",), ("celery", "worker"), ("celery", "beat"), ("granian",), ("bin/postgres",), ("valkey",)]


@pytest.mark.parametrize("words", PARTS)
def test_a_killed_part_comes_back_and_the_stack_works_again(stack, key, words):
    before = stack.pids(*words)
    os.kill(before[0], signal.SIGKILL)
    stack.until(lambda: set(stack.pids(*words)) - set(before))
    stack.until(lambda: stack.get(stack.web, "/readyz")[0] == 200)
    stack.until(lambda: stack.send(key, span_id=before[0]))


def test_what_was_acknowledged_survives_the_death_of_everything(stack, key):
    before = stack.spans()
    acknowledged = sum(stack.send(key, span_id=number) for number in range(10**6, 10**6 + 20))
    assert acknowledged == 20
    pids = [stack.process.pid, *leftovers(stack.home)]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # ended with the one before
    stack.process.wait(LIMIT_S)
    stack.reader.join(LIMIT_S)
    stack.start()
    assert stack.spans() == before + acknowledged
    assert "ca_ing_" not in stack.text


def test_pages_and_collectors_say_so_while_the_database_is_away_and_recover(stack, key):
    data = stack.home / "postgres" / "data"
    signed_in = {"Cookie": "costapp-session=" + "a" * 32}  # makes the page ask the database who this is
    data.rename(data.with_name("away"))
    try:
        os.kill(stack.pids("bin/postgres")[0], signal.SIGKILL)
        stack.until(lambda: stack.get(stack.web, "/readyz")[0] == 503)
        status, page = stack.get(stack.web, "/admin/", signed_in)
        assert status == 503
        assert "The database is away" in page
        assert stack.get(stack.http, "/readyz")[0] == 503
        assert not stack.send(key, span_id=77)
    finally:
        data.with_name("away").rename(data)
    stack.until(lambda: stack.get(stack.web, "/readyz")[0] == 200)
    stack.until(lambda: stack.send(key, span_id=77))
    assert "Traceback" not in stack.text


def test_the_stop_is_ordered_and_leaves_nothing(stack):
    assert stack.end(signal.SIGINT) == 0
    assert "Stopped." in stack.text
    assert leftovers(stack.home) == []
    assert not (stack.home / "env").exists()
    assert not (stack.home / "postgres/data/postmaster.pid").exists()


def test_the_servers_run_alone_for_a_restore(stack):
    stack.start("--servers-only")
    assert stack.pids("bin/postgres")
    assert stack.pids("collectors") == stack.pids("celery") == []
    assert stack.spans() > 0
    assert stack.end(signal.SIGTERM) == 0
