"""`make run`: everything on this machine, from one command."""

import argparse
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from costapp import env
from costapp.runtime import preflight
from costapp.runtime.console import Console
from costapp.runtime.errors import StartError
from costapp.runtime.home import lock_home, make_home, secret, write_private
from costapp.runtime.postgres import Postgres
from costapp.runtime.process import HOME_MARK
from costapp.runtime.supervisor import Program, StopRequested, Supervisor
from costapp.runtime.valkey import Valkey

CHECKOUT = Path(__file__).resolve().parent.parent.parent
MANAGE = CHECKOUT / "manage.py"
# Celery's warning for a worker started by root says nothing that the person who typed `make run` did not choose.
QUIET_ABOUT_ROOT = "ignore:You're running the worker with superuser privileges"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
FIRST_SIGN_IN = "first-sign-in.json"

PORTS = (
    ("--port", "COSTAPP_PORT", 8000),
    ("--otlp-http-port", "COSTAPP_OTLP_HTTP_PORT", 4318),
    ("--otlp-grpc-port", "COSTAPP_OTLP_GRPC_PORT", 4317),
)
# What `manage.py` in another terminal must know to work on this instance.
SHARED = (
    "DATABASE_URL", "CELERY_BROKER_URL", "COSTAPP_SECRET_KEY", "COSTAPP_FIELD_KEYS", "COSTAPP_STATIC_ROOT",
    *(name for _, name, _ in PORTS),
)  # fmt: skip


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="manage.py up",
        description="Start the database, the broker, the web pages, the collectors and the workers, and keep them up.",
    )
    parser.add_argument("--home", type=Path, default=env.default_home(), help="data home (COSTAPP_HOME)")
    bind = env.given("COSTAPP_BIND") or "127.0.0.1"
    parser.add_argument("--bind", default=bind, help="address to listen on (COSTAPP_BIND)")
    for option, name, default in PORTS:
        port = env.whole(name, env.given(name) or str(default))
        parser.add_argument(option, type=int, default=port, help=f"default {default} ({name})")
    parser.add_argument(
        "--demo", action="store_true", help="add a project with a believable company in it, and live traffic"
    )
    parser.add_argument(
        "--servers-only",
        action="store_true",
        help="start the embedded servers and nothing that uses them (for a restore)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    console = Console()
    try:
        return run(options(arguments), console)
    except (StartError, env.SettingError) as error:
        console.error(str(error))
        return 1


def run(chosen: argparse.Namespace, console: Console) -> int:
    home = chosen.home.expanduser().resolve()
    console.say(f"Costapp starts. Its data is in {home}")
    make_home(home)
    lock = lock_home(home)
    os.environ[HOME_MARK] = str(home)
    preflight.end_leftovers(home)
    check(chosen)
    supervisor = Supervisor(console, logs=home / "logs", directory=CHECKOUT)
    supervisor.listen()
    code = 0
    try:
        start(supervisor, home, chosen)
        supervisor.keep_up()
    except StopRequested:
        pass
    except StartError as error:
        console.error(str(error))
        code = 1
    finally:
        console.notice("Stopping: collectors and pages first, the database last.")
        supervisor.stop_all()
        (home / "env").unlink(missing_ok=True)
    console.notice("Stopped. The same command starts it again with all data.")
    lock.close()
    return code


def check(chosen: argparse.Namespace) -> None:
    for (option, name, _), what in zip(PORTS, ("pages", "OTLP/HTTP", "OTLP/gRPC"), strict=True):
        port = getattr(chosen, option.strip("-").replace("-", "_"))
        preflight.check_port(chosen.bind, port, what=what, setting=f"{name} or {option}")
    if url := env.given("DATABASE_URL"):
        preflight.check_database(url)
    if url := env.given("CELERY_BROKER_URL"):
        preflight.check_broker(url)


def start(supervisor: Supervisor, home: Path, chosen: argparse.Namespace) -> None:
    console = supervisor.console
    all_programs = list(programs(home, chosen))  # a wrong setting ends the start here
    supervisor.environment |= environment(home, chosen)
    start_servers(supervisor, home)
    if chosen.servers_only:
        console.box(
            ["Only the embedded servers run. Their addresses are in", str(home / "env"), "", "Stop with Ctrl-C."]
        )
        return
    prepare = [sys.executable, MANAGE, "bootstrap", "--credentials", home / FIRST_SIGN_IN]
    supervisor.run_once("bootstrap", [*prepare, "--demo"] if chosen.demo else prepare)
    console.step("schema, prices and first project")
    for program in all_programs:
        supervisor.start_program(program)
    for program in all_programs:
        supervisor.wait_program(program)
    console.step("pages, collectors, worker, schedule")
    greet(console, home, chosen)


def start_servers(supervisor: Supervisor, home: Path) -> None:
    """Those that no URL replaces; then tells the other processes of this home where they are."""
    console, environment = supervisor.console, supervisor.environment
    if url := env.given("DATABASE_URL"):
        environment["DATABASE_URL"] = url
    else:
        postgres = Postgres(home / "postgres")
        supervisor.start_server(postgres)
        environment["DATABASE_URL"] = postgres.url()
        environment.setdefault("COSTAPP_DISK_PATH", str(home))
        console.step(f"PostgreSQL {postgres.binaries.version}")
    if url := env.given("CELERY_BROKER_URL"):
        environment["CELERY_BROKER_URL"] = url
    else:
        valkey = Valkey(home / "valkey")
        supervisor.start_server(valkey)
        environment["CELERY_BROKER_URL"] = valkey.url()
        console.step("Valkey")
    write_private(home / "env", "".join(f"{name}={environment[name]}\n" for name in SHARED))


def environment(home: Path, chosen: argparse.Namespace) -> dict[str, str]:
    """What every process gets. Secrets travel here and never on a command line."""
    return {
        "DJANGO_SETTINGS_MODULE": "costapp.settings",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",
        "COSTAPP_HOME": str(home),
        "COSTAPP_BIND": chosen.bind,
        "COSTAPP_PORT": str(chosen.port),
        "COSTAPP_OTLP_HTTP_PORT": str(chosen.otlp_http_port),
        "COSTAPP_OTLP_GRPC_PORT": str(chosen.otlp_grpc_port),
        "COSTAPP_STATIC_ROOT": env.given("COSTAPP_STATIC_ROOT") or str(home / "static"),
        "COSTAPP_SECRET_KEY": env.given("COSTAPP_SECRET_KEY") or secret(home / "secret-key", random_bytes=48),
        "COSTAPP_FIELD_KEYS": env.given("COSTAPP_FIELD_KEYS") or secret(home / "field-key"),
    }


def programs(home: Path, chosen: argparse.Namespace) -> Iterator[Program]:
    python = sys.executable
    yield Program(
        "collector", [python, "-m", "collectors"],
        is_ready=lambda: accepts(chosen.bind, chosen.otlp_http_port) and accepts(chosen.bind, chosen.otlp_grpc_port),
    )  # fmt: skip
    yield Program("web", web_command(chosen), is_ready=lambda: answers(chosen))
    celery = [python, "-m", "celery", "-q", "-A", "costapp.celery"]
    yield Program(
        "worker",
        [*celery, "worker", "-l", "WARNING", "-c", str(env.number("COSTAPP_WORKERS", 2, least=1)),
         "--without-gossip", "--without-mingle", "-n", "worker@%h"],
        death_signal=signal.SIGKILL, stop_limit_s=20, environment={"PYTHONWARNINGS": QUIET_ABOUT_ROOT},
    )  # fmt: skip
    clock = [*celery[:-1], "costapp.celery:clock"]
    yield Program("beat", [*clock, "beat", "-l", "WARNING", "-s", home / "beat-schedule", "--pidfile="])
    if chosen.demo:
        yield Program("traffic", [python, MANAGE, "demo_traffic", "--seed"])


def web_command(chosen: argparse.Namespace) -> list[str]:
    return [
        sys.executable, "-m", "granian", "--interface", "wsgi", "--host", chosen.bind, "--port", str(chosen.port),
        "--workers", "1", "--blocking-threads", str(env.number("COSTAPP_WEB_THREADS", 4, least=1)),
        "--respawn-failed-workers", "--no-access-log", "--log-level", "warning", "costapp.wsgi:application",
    ]  # fmt: skip


def accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((reachable(host), port), timeout=2):
            return True
    except OSError:
        return False


def answers(chosen: argparse.Namespace) -> bool:
    host = reachable(chosen.bind)
    url = f"http://[{host}]:{chosen.port}/readyz" if ":" in host else f"http://{host}:{chosen.port}/readyz"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the shell is for other hosts
    try:
        with direct.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def reachable(host: str) -> str:
    """Where to knock when listening on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def greet(console: Console, home: Path, chosen: argparse.Namespace) -> None:
    """Where to look, what to do next; at the first start also the only print of password and key."""
    shown = "localhost" if chosen.bind in (*LOOPBACK, "0.0.0.0", "::") else chosen.bind
    lines = [
        "Costapp is ready.",
        "",
        f"Open      http://{shown}:{chosen.port}/",
        f"Send to   http://{shown}:{chosen.otlp_http_port} (OTLP/HTTP)   {shown}:{chosen.otlp_grpc_port} (OTLP/gRPC)",
    ]
    path = home / FIRST_SIGN_IN
    if path.exists():
        first = json.loads(path.read_text())
        lines += [
            "",
            f"Sign in   {first['user']}   password  {first['password']}",
            f"Key       {first['key']}   (project {first['project']})",
            "          Shown only this once: keep both. Next step: the page Connect an app.",
        ]
    if chosen.demo:
        lines += ["", "The demo project fills up while you look, newest days first."]
    if chosen.bind not in LOOPBACK and not env.given("COSTAPP_ALLOWED_HOSTS"):
        lines += ["", "Pages answer to localhost only: name this machine in COSTAPP_ALLOWED_HOSTS."]
    console.box([*lines, "", "Stop with Ctrl-C."])
    path.unlink(missing_ok=True)
