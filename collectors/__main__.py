"""`python -m collectors`: check the settings, then run one or more collector processes on the same ports."""

import multiprocessing
import multiprocessing.connection
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from types import FrameType

from collectors import server
from collectors.settings import SettingError, Settings, load


def main() -> int:
    server.log_to_stderr()
    try:
        settings = load()
        server.check_port(settings.bind, settings.http_port, "COSTAPP_OTLP_HTTP_PORT")
        server.check_port(settings.bind, settings.grpc_port, "COSTAPP_OTLP_GRPC_PORT")
        if settings.processes == 1:
            return server.run(settings)
        return _run_many(settings)
    except SettingError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2


def _run_many(settings: Settings) -> int:
    """Processes share the ports by SO_REUSEPORT. One that ends takes the others along; a supervisor restarts all."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=server.run_as_child, args=(settings,)) for _ in range(settings.processes)]

    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.set()
        _terminate(processes)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for process in processes:
        process.start()
    multiprocessing.connection.wait([process.sentinel for process in processes])
    was_asked = asked.is_set()
    _terminate(processes)
    for process in processes:
        process.join(settings.shutdown_seconds + 5)
    # One that was still starting has no handler yet and ends by the signal itself.
    well = all(process.exitcode in {0, -signal.SIGTERM} for process in processes)
    return 0 if was_asked and well else 1


def _terminate(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.pid is not None:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
