"""What the documentation must mention, read from the code itself."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
DOCS = "\n".join(path.read_text() for path in [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"])
# Names inside this repository that are no settings of a running Costapp.
INTERNAL = {"COSTAPP_SUPERVISED"}


def code() -> list[Path]:
    places = ("costapp", "collectors", "anomaly", "benchmarks", "tests/conftest.py", "tests/browser_setup.py")
    found = [ROOT / place for place in places]
    files = [file for place in found for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    return [*files, ROOT / "manage.py"]


def settings() -> set[str]:
    names = {name for file in code() for name in re.findall(r"\bCOSTAPP_[A-Z0-9_]+\b", file.read_text())}
    return {name.removesuffix("_FILE") for name in names} - INTERNAL | {"DATABASE_URL", "CELERY_BROKER_URL"}


@pytest.mark.parametrize("name", sorted(settings()))
def test_every_setting_is_documented(name):
    assert f"`{name}`" in DOCS


@pytest.mark.parametrize("path", sorted((ROOT / "costapp/management/commands").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_every_command_is_documented(path):
    assert f"manage.py {path.stem}" in DOCS


@pytest.mark.parametrize("verb", re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
def test_every_make_verb_is_documented(verb):
    assert f"make {verb}" in DOCS


def test_relative_links_in_the_documentation_lead_somewhere():
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert not dead


def test_no_setting_is_documented_that_does_not_exist():
    documented = set(re.findall(r"^\| `(COSTAPP_[A-Z0-9_]+)`", DOCS, re.MULTILINE))
    assert documented
    assert documented - settings() == set()


# --- pinned packages


def listed(*files: str) -> list[Requirement]:
    lines = (line for name in files for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


def pulled_in(requirement: Requirement) -> set[str]:
    """The package and everything it brings along on this machine."""
    seen = set()
    queue = [requirement]
    while queue:
        wanted = queue.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        for line in importlib.metadata.requires(wanted.name) or []:
            needed = Requirement(line)
            contexts = [{**default_environment(), "extra": extra} for extra in (*wanted.extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(context) for context in contexts):
                queue.append(needed)
    return {name for name, _ in seen}


def test_every_package_that_is_installed_has_an_exact_version():
    everything = listed("requirements.txt", "requirements-dev.txt", "constraints.txt")
    assert [str(each) for each in everything if [s.operator for s in each.specifier] != ["=="]] == []
    pulled = set().union(*(pulled_in(each) for each in listed("requirements.txt", "requirements-dev.txt")))
    assert pulled - {canonicalize_name(each.name) for each in everything} == set()
