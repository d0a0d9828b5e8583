"""docs/collectors.md is held true: every setting with its default and counter, every counter, every reason."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from collectors import ingest, settings
from collectors.counters import GAUGES, HELP, HISTOGRAMS, PREFIX

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs/collectors.md").read_text()
REASON = re.compile(
    r'(?:Refusal\(\s*[A-Z_]+,|unavailable\(|bad_data\()\s*"([a-z_]+)"|odd\["([a-z_]+)"\]|else "(wrong_key)"'
    r'|reason="([a-z_]+)"'
)


@pytest.mark.parametrize("item", fields(settings.Settings), ids=lambda item: item.name)
def test_every_setting_is_listed_with_its_default_and_the_name_it_is_counted_under(item):
    default = item.default if item.default != "" else "none"
    row = f"| `{item.metadata['env']}` | {default} | {item.metadata['meaning']} |"
    assert row in DOC
    if item.metadata["counter"]:
        assert f"{row} `{item.metadata['counter']}` |" in DOC


@pytest.mark.parametrize("name", [*HELP, *HISTOGRAMS, *GAUGES])
def test_every_counter_is_listed(name):
    assert f"| `{PREFIX}_{name}` |" in DOC


def reasons() -> set[str]:
    code = "\n".join(path.read_text() for path in (ROOT / "collectors").glob("*.py"))
    return {name for names in REASON.findall(code) for name in names if name} | set(ingest._FIXES)


@pytest.mark.parametrize("reason", sorted(reasons()))
def test_every_reason_is_explained(reason):
    assert f"`{reason}`" in DOC


def test_every_counter_of_a_limit_is_a_reason_that_exists():
    assert {item.metadata["counter"] for item in fields(settings.Settings)} - {""} <= reasons()


@pytest.mark.parametrize(("name", "value", "message"), [
    ("COSTAPP_OTLP_HTTP_PORT", "http", "COSTAPP_OTLP_HTTP_PORT must be a whole number, not 'http'."),
    ("COSTAPP_COLLECTOR_PROCESSES", "0", "COSTAPP_COLLECTOR_PROCESSES must be at least 1, not 0."),
    ("COSTAPP_KEY_CACHE_SECONDS", "31", "COSTAPP_KEY_CACHE_SECONDS must be at most 30, so that revoking"),
    ("COSTAPP_MAX_MEMORY_BYTES", "2048", "COSTAPP_MAX_MEMORY_BYTES must be at least twice COSTAPP_MAX_BODY_BYTES."),
    ("DATABASE_URL_FILE", "/nowhere", "DATABASE_URL_FILE names /nowhere, which cannot be read."),
])  # fmt: skip
def test_a_wrong_setting_is_one_clear_sentence(name, value, message):
    with pytest.raises(settings.SettingError) as caught:
        settings.load({name: value})
    assert str(caught.value).startswith(message)


def test_a_secret_may_come_from_a_file(tmp_path):
    (tmp_path / "url").write_text("postgresql:///x\n")
    assert settings.load({"DATABASE_URL_FILE": str(tmp_path / "url")}).database_url == "postgresql:///x"
