"""A start that cannot work says why in one sentence and ends with an exit code."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from costapp.env import SettingError
from costapp.runtime import home, preflight
from costapp.runtime.errors import StartError
from costapp.runtime.home import lock_home, make_home
from costapp.runtime.postgres import Postgres
from costapp.runtime.up import options, programs

CHECKOUT = Path(__file__).resolve().parents[2]


def up(*arguments, **environment):
    """`make run` without make."""
    return subprocess.run(
        [sys.executable, "-m", "costapp.runtime", *map(str, arguments)],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def ports():
    web, http, grpc = free_ports(3)
    return ("--port", web, "--otlp-http-port", http, "--otlp-grpc-port", grpc)


def refused(done):
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("costapp: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_taken_port_is_named_with_the_way_to_change_it(tmp_path, ports):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = refused(up("--home", tmp_path, *ports, "--port", port))
    assert f"Port {port} (pages)" in sentence
    assert "COSTAPP_PORT or --port" in sentence


def test_a_home_that_cannot_be_written_is_refused(tmp_path, ports):
    (tmp_path / "file").touch()
    sentence = refused(up("--home", tmp_path / "file" / "home", *ports))
    assert "Cannot write to the data home" in sentence
    assert "--home" in sentence


def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(home, "SPACE_NEEDED", 1 << 60)
    with pytest.raises(StartError, match=r"Only \d+ MB are free on the disk of"):
        make_home(tmp_path)


def test_a_second_start_of_the_same_home_is_refused(tmp_path, ports):
    make_home(tmp_path)
    with lock_home(tmp_path):
        sentence = refused(up("--home", tmp_path, *ports))
    assert f"already running for {tmp_path} (process {os.getpid()})" in sentence


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("not a url", "DATABASE_URL cannot be read; it looks like postgresql://"),
        ("postgresql://u@host:port/db", "DATABASE_URL cannot be read"),
        ("mysql://u@127.0.0.1/db", "begins with 'mysql', but Costapp runs on PostgreSQL"),
        ("postgresql://u:hidden@127.0.0.1:1/db", "No PostgreSQL answers at 127.0.0.1:1"),
    ],
)
def test_a_wrong_database_url_is_refused(tmp_path, ports, url, words):
    sentence = refused(up("--home", tmp_path, *ports, DATABASE_URL=url))
    assert words in sentence
    assert "hidden" not in sentence


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kafka://127.0.0.1", "begins with 'kafka'; supported are"),
        ("redis://127.0.0.1:1/0", "No broker answers at 127.0.0.1:1"),
        ("amqp://guest:hidden@127.0.0.1:1//", "No broker answers at 127.0.0.1:1"),
        ("redis", "CELERY_BROKER_URL cannot be read"),
    ],
)
def test_a_wrong_broker_url_is_refused(tmp_path, ports, url, words):
    with pytest.raises(StartError, match=words) as refusal:
        preflight.check_broker(url)
    assert "hidden" not in str(refusal.value)


@pytest.fixture(scope="module")
def server_url():
    return os.environ["DATABASE_URL"]


def changed(url, **parts):
    return psycopg.conninfo.make_conninfo(url, **parts)


def check_with(monkeypatch, url, **parts):
    """check_database, but connecting with some parts of the URL changed."""
    connect = psycopg.connect
    monkeypatch.setattr(psycopg, "connect", lambda _url, **rest: connect(changed(url, **parts), **rest))
    with pytest.raises(StartError) as refusal:
        preflight.check_database(url)
    return str(refusal.value)


def test_a_good_database_url_is_accepted(server_url):
    preflight.check_database(server_url)


def test_a_wrong_password_is_refused_without_repeating_it(server_url, monkeypatch):
    sentence = check_with(monkeypatch, server_url, password="hidden")
    assert "refuses the user or password" in sentence
    assert "hidden" not in sentence


def test_a_missing_database_is_named(server_url, monkeypatch):
    assert "has no database 'nowhere'" in check_with(monkeypatch, server_url, dbname="nowhere")


def test_a_server_that_is_too_old_is_refused(server_url, monkeypatch):
    monkeypatch.setattr(preflight, "OLDEST_MAJOR", 99)
    assert "Costapp needs 99 or newer" in check_with(monkeypatch, server_url)


def test_data_of_another_postgresql_major_is_refused(tmp_path):
    server = Postgres(tmp_path / "postgres")
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartError, match=r"was written by PostgreSQL 9, but the installed one is \d+"):
        server.prepare()


def test_a_named_folder_without_postgresql_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COSTAPP_PG_BIN", str(tmp_path))
    with pytest.raises(StartError, match="COSTAPP_PG_BIN is"):
        Postgres(tmp_path / "postgres").prepare()


@pytest.mark.parametrize("value", ["eight", "-1", "0"])
def test_a_setting_of_the_wrong_type_is_refused(tmp_path, value):
    sentence = refused(up("--home", tmp_path, COSTAPP_PORT=value))
    assert "COSTAPP_PORT" in sentence


@pytest.mark.parametrize("name", ["COSTAPP_WORKERS", "COSTAPP_WEB_THREADS"])
def test_a_number_of_processes_or_threads_is_checked_before_any_is_started(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "0")
    with pytest.raises(SettingError, match=f"{name} must be a whole number from 1 on"):
        list(programs(tmp_path, options([])))


@pytest.mark.parametrize("command", [["verify_ledger"], ["explain", "0" * 32], ["reprice", "--dry-run"]])
def test_commands_say_in_words_that_the_database_is_away(command):
    environment = {**os.environ, "DATABASE_URL": f"postgresql://nobody:x@127.0.0.1:{free_ports(1)[0]}/costapp"}
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("The database gives no answer")
    assert "Traceback" not in done.stderr
