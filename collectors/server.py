"""One collector process: OTLP/HTTP and OTLP/gRPC on one event loop, sharing one Ingest and its writers."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import signal
import socket
import sys

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server as HttpServer

from collectors.grpc_server import make_server
from collectors.http_server import HttpApp
from collectors.ingest import Ingest
from collectors.scrape.scraper import Scraper
from collectors.settings import SettingError, Settings

log = logging.getLogger("costapp.collectors")

# The writers need the interpreter only for moments; waiting the default 5 ms for each would idle the database.
_SWITCH_SECONDS = 0.001
_PR_SET_PDEATHSIG = 1
# Not rarer: decoding makes hardly any cycles, but a finished gRPC call is one that holds its message, and waiting
# longer for a collection keeps hundreds of MiB. Not much more often either: each collection costs decoding time.
_GC_THRESHOLD = 2_000


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code: 1 if a server ended by itself."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(_GC_THRESHOLD, 50, 100)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


def run_as_child(settings: Settings) -> None:
    """`run` in one of several processes. Ends with its parent, also when that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    log_to_stderr()
    sys.exit(run(settings))


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("_granian").setLevel(logging.WARNING)


async def _serve(settings: Settings) -> int:
    ingest = Ingest(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    grpc_server = await _start_grpc(ingest, settings) if settings.grpc_port else None
    app = HttpApp(ingest)
    http_server = _http_server(app, settings) if settings.http_port else None
    ingest.start()
    tasks = [asyncio.create_task(ingest.watch())]
    scraping = asyncio.create_task(Scraper(ingest, settings).run() if settings.scrape else _nothing())
    if http_server is not None:
        tasks.append(asyncio.create_task(http_server.serve()))
    gc.collect()
    gc.freeze()  # what is loaded now stays: the collector need not look at it again
    log.info("Listening: OTLP/HTTP on %s:%s, OTLP/gRPC on %s:%s.", settings.bind, settings.http_port, settings.bind,
             settings.grpc_port)  # fmt: skip
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    asked = waiting.done()
    if not asked:
        log.error("The HTTP server ended by itself; stopping.")
    scraping.cancel()
    await asyncio.wait([scraping])
    await _stop(ingest, app, http_server, grpc_server, settings)
    tasks[0].cancel()
    await asyncio.wait(tasks, timeout=settings.shutdown_seconds)  # cancelled before its end, granian complains
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
    return 0 if asked else 1


async def _nothing() -> None:
    pass


def _http_server(app: HttpApp, settings: Settings) -> HttpServer:
    return HttpServer(
        app,
        address=settings.bind,
        port=settings.http_port,
        interface=Interfaces.RSGI,
        http=HTTPModes.auto,
        websockets=False,
        backlog=1024,
        backpressure=1024,
        log_access=False,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=settings.header_seconds * 1000),
    )


async def _start_grpc(ingest: Ingest, settings: Settings) -> object:
    server = make_server(ingest, settings)
    host = f"[{settings.bind}]" if ":" in settings.bind else settings.bind
    try:
        server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError:
        raise SettingError(_taken(settings.bind, settings.grpc_port, "COSTAPP_OTLP_GRPC_PORT")) from None
    await server.start()
    return server


async def _stop(ingest: Ingest, app: HttpApp, http_server: HttpServer | None, grpc_server: object, settings: Settings
                ) -> None:  # fmt: skip
    """Refuse new requests, let those in flight be answered, then stop the servers."""
    log.info("Stopping: finishing what is in flight.")
    ingest.stopping = True
    if grpc_server is not None:
        await grpc_server.stop(settings.shutdown_seconds)  # type: ignore[attr-defined]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.shutdown_seconds):
            while app.in_flight:
                await asyncio.sleep(0.02)
    if http_server is not None:
        http_server.stop()  # type: ignore[no-untyped-call]
    app.guard.close()
    await ingest.stop()


def check_port(bind: str, port: int, variable: str) -> None:
    """SettingError if another program listens there already."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            if isinstance(error, socket.gaierror):
                raise SettingError(f"COSTAPP_BIND={bind} is no address of this machine.") from None
            raise SettingError(_taken(bind, port, variable)) from None


def _taken(bind: str, port: int, variable: str) -> str:
    return f"Cannot listen on {bind}:{port}: the port is taken or not allowed. Set {variable} to another one."
