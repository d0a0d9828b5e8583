"""docker-compose.yml and the Dockerfile name what exists here, and repeat what `make run` does."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from costapp.runtime.up import options, programs

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = {"prepare", "web", "collector", "worker", "beat", "demo"}


def test_every_process_has_a_service():
    assert set(SERVICES) == OURS | {"db", "broker"}
    assert SERVICES["demo"]["profiles"] == ["demo"]


def essence(command):
    """What tells the processes apart: app and verb for celery, else the last word."""
    words = [str(word) for word in command]
    app = next((number for number, word in enumerate(words) if word.startswith("costapp.celery")), None)
    return words[-1] if app is None else " ".join(words[app : app + 2])


def test_the_services_run_the_programs_of_the_supervisor():
    chosen = options([])
    supervised = {program.name: essence(program.command) for program in programs(Path("/home"), chosen)}
    image = re.search(r"^CMD (\[.*?\])$", DOCKERFILE.replace("\\\n", ""), re.MULTILINE)[1]
    contained = {name: essence(SERVICES[name].get("command") or yaml.safe_load(image)) for name in supervised}
    assert contained == supervised


def test_every_variable_without_a_default_is_in_the_example_file():
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    offered = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used == offered


def test_no_secret_has_a_default():
    required = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert required == {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "COSTAPP_SECRET_KEY", "COSTAPP_FIELD_KEYS"}


def test_no_service_publishes_the_database_or_the_broker():
    assert not any("ports" in SERVICES[name] for name in ("db", "broker"))


def test_the_services_wait_for_what_they_need():
    for name in OURS:
        needed = set(SERVICES[name]["depends_on"])
        assert needed <= set(SERVICES)
        assert "db" in needed or "prepare" in needed


def test_the_image_does_not_run_as_root_and_copies_what_exists():
    assert re.search(r"^USER (?!root)", DOCKERFILE, re.MULTILINE)
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        for source in shlex.split(line)[:-1]:
            assert (ROOT / source).exists()


@pytest.mark.parametrize("name", sorted(OURS - {"web"}))
def test_the_commands_name_modules_and_management_commands_that_exist(name):
    command = " ".join(SERVICES[name]["command"])
    for managed in re.findall(r"manage\.py (\w+)", command):
        assert (ROOT / f"costapp/management/commands/{managed}.py").exists()
    if "-m collectors" in command:
        assert (ROOT / "collectors/__main__.py").exists()
