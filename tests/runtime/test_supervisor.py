"""The supervisor keeps processes up, stops them in order and leaves none behind."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from costapp.runtime import supervisor as module
from costapp.runtime.console import Console, LogFile
from costapp.runtime.errors import StartError
from costapp.runtime.preflight import end_leftovers, leftovers
from costapp.runtime.process import HOME_MARK
from costapp.runtime.supervisor import Program, Supervisor

CHECKOUT = Path(__file__).resolve().parents[2]
FOREVER = [sys.executable, "-c", "import signal; print('here', flush=True); signal.pause()"]
LIMIT_S = 20


@pytest.fixture
def screen():
    return io.StringIO()


@pytest.fixture
def supervisor(tmp_path, screen):
    supervisor = Supervisor(Console(screen), logs=tmp_path / "logs", directory=tmp_path)
    yield supervisor
    supervisor.stop_all()


def until(supervisor, condition):
    """Run the supervisor's own loop body until the condition holds."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        supervisor._pump(0.02)
        revive_all(supervisor)


def revive_all(supervisor):
    for program in supervisor.programs.values():
        supervisor._revive(program.name, lambda program=program: supervisor._launch(program))


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_a_killed_program_is_started_again_and_it_says_so(supervisor, screen):
    supervisor.start_program(Program("web", FOREVER))
    first = supervisor.running["web"].process
    first.kill()
    until(supervisor, lambda: supervisor.running["web"].process is not first)
    assert supervisor.running["web"].process.poll() is None
    assert "web ended (signal SIGKILL); starting it again in 1 s" in screen.getvalue()


def test_a_program_that_keeps_dying_is_given_longer_and_longer_pauses(supervisor, screen, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    supervisor.start_program(Program("web", ["false"]))
    for _ in range(8):
        supervisor.running["web"].process.wait()
        assert not supervisor._may_start("web")
        clock[0] += module.LONGEST_PAUSE_S
        revive_all(supervisor)
    pauses = [int(line.split()[-2]) for line in screen.getvalue().splitlines()]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_program_that_cannot_be_started_again_does_not_end_the_supervisor(supervisor, screen, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    supervisor.start_program(Program("web", [script]))
    script.unlink()
    until(supervisor, lambda: "web cannot be started (" in screen.getvalue())


def test_what_a_killed_program_left_behind_is_ended_before_it_is_started_again(supervisor):
    parent = (
        "import subprocess, signal; p = subprocess.Popen(['sleep', '1000']); print(p.pid, flush=True); signal.pause()"
    )
    supervisor.start_program(Program("web", [sys.executable, "-c", parent]))
    first = supervisor.running["web"]
    until(supervisor, lambda: first.last_lines)
    orphan = int(first.last_lines[0])
    first.process.kill()
    until(supervisor, lambda: supervisor.running["web"] is not first)
    assert is_gone(orphan)


def test_a_program_that_dies_before_it_is_ready_stops_the_start_with_its_last_words(supervisor):
    program = Program("web", [sys.executable, "-c", "raise SystemExit('no such table')"], is_ready=lambda: False)
    supervisor.start_program(program)
    with pytest.raises(StartError, match=r"web did not start\. Its last words: no such table"):
        supervisor.wait_program(program)


def test_lines_are_shown_with_the_name_of_their_process_and_logged_with_the_time(supervisor, screen, tmp_path):
    supervisor.start_program(Program("web", FOREVER))
    until(supervisor, lambda: "here" in screen.getvalue())
    assert screen.getvalue().startswith("web       ")
    assert (tmp_path / "logs" / "web.log").read_text().endswith(" here\n")


def test_a_program_that_ignores_the_request_to_stop_is_killed(supervisor):
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)\nwhile True: signal.pause()"
    supervisor.start_program(Program("web", [sys.executable, "-c", deaf], stop_limit_s=0.2))
    child = supervisor.running["web"]
    until(supervisor, lambda: child.last_lines)
    supervisor.stop_all()
    assert child.process.returncode == -signal.SIGKILL


def test_children_end_when_the_supervisor_is_killed(tmp_path):
    script = (
        "import io, sys, pathlib\n"
        "from costapp.runtime.console import Console\n"
        "from costapp.runtime.supervisor import Program, Supervisor\n"
        f"s = Supervisor(Console(io.StringIO()), logs=pathlib.Path({str(tmp_path / 'logs')!r}), directory='.')\n"
        "s.start_program(Program('web', ['sleep', '1000']))\n"
        "print(s.running['web'].process.pid, flush=True)\n"
        "s.keep_up()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + LIMIT_S
    while not is_gone(child):
        assert time.monotonic() < deadline


def test_processes_of_an_earlier_run_are_ended_and_those_of_another_home_are_not(tmp_path):
    def start(home):
        return subprocess.Popen(["sleep", "1000"], env={**os.environ, HOME_MARK: str(home)})

    ours, others = start(tmp_path / "a"), start(tmp_path / "b")
    try:
        assert end_leftovers(tmp_path / "a") == 1
        assert ours.wait(LIMIT_S) == -signal.SIGTERM
        assert leftovers(tmp_path / "b") == [others.pid]
    finally:
        for process in (ours, others):
            process.kill()
            process.wait()


def test_a_terminal_that_is_gone_does_not_disturb_what_runs(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        Console(gone).notice("nobody reads this")
        with pytest.raises(BrokenPipeError):
            gone.flush()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), gone.fileno())  # so that closing succeeds


def test_a_log_file_stays_within_its_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("costapp.runtime.console.LOG_BYTES", 100)
    log = LogFile(tmp_path / "web.log")
    for number in range(100):
        log.write(b"line %3d\n" % number)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["web.log", "web.log.1"]
    assert all(file.stat().st_size <= 110 for file in files)
    assert "line  99" in "".join(file.read_text() for file in files)
