"""Settings have a type, a sentence when it is wrong, and are safe for production."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from costapp import env
from costapp.env import SettingError

CHECKOUT = Path(__file__).resolve().parents[2]


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "COSTAPP_HOME": "/nowhere", **environment},
        capture_output=True,
        text=True,
    )


PRODUCTION = {"COSTAPP_SECRET_KEY": "0123456789abcdefghij" * 3, "COSTAPP_HTTPS": "1"}


def test_the_deployment_check_is_clean_with_production_settings():
    done = python("-W", "error", "manage.py", "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert done.returncode == 0, done.stderr
    assert "(0 silenced)" in done.stdout


def test_the_web_process_refuses_to_start_without_a_secret():
    done = python("-c", "import costapp.wsgi")
    assert done.returncode == 1
    assert "COSTAPP_SECRET_KEY is not set" in done.stderr


def test_the_web_process_starts_with_a_secret():
    assert python("-c", "import costapp.wsgi", **PRODUCTION).returncode == 0


def setting(name, **environment):
    code = f"from costapp import settings; print(settings.{name})"
    done = python("-c", code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cookies_are_bound_to_the_host_and_secure_behind_https():
    assert setting("SESSION_COOKIE_NAME", COSTAPP_HTTPS="1") == "__Host-costapp-session"
    assert setting("SESSION_COOKIE_SECURE", COSTAPP_HTTPS="1") == "True"
    assert setting("SESSION_COOKIE_SECURE") == "False"  # or nobody could sign in on http://localhost


def test_rabbitmq_gets_quorum_queues_and_redis_gets_lost_tasks_back_soon():
    assert setting("CELERY_TASK_DEFAULT_QUEUE_TYPE", CELERY_BROKER_URL="amqp://broker//") == "quorum"
    options = setting("CELERY_BROKER_TRANSPORT_OPTIONS", CELERY_BROKER_URL="redis://broker/0")
    assert "'visibility_timeout': 900" in options
    assert "'unacked_restore_interval': 5, 'unacked_restore_throttle': 1" in options
    assert int(setting("CELERY_TASK_TIME_LIMIT")) < 900


def test_a_secret_can_come_from_a_file(tmp_path):
    (tmp_path / "secret").write_text("from a file\n")
    assert setting("SECRET_KEY", COSTAPP_SECRET_KEY_FILE=str(tmp_path / "secret")) == "from a file"
    done = python("-c", "from costapp import settings", COSTAPP_SECRET_KEY_FILE=str(tmp_path / "none"))
    assert "COSTAPP_SECRET_KEY_FILE is" in done.stderr


@pytest.mark.parametrize("value", ["maybe", "2", "-"])
def test_a_switch_is_on_or_off(monkeypatch, value):
    monkeypatch.setenv("COSTAPP_TEST", value)
    with pytest.raises(SettingError, match=f"COSTAPP_TEST must be 1 or 0, not '{value}'"):
        env.flag("COSTAPP_TEST")


@pytest.mark.parametrize("value", ["", "1.5", "-1", "ten", "²"])
def test_a_number_is_whole_and_not_negative(monkeypatch, value):
    monkeypatch.setenv("COSTAPP_TEST", value)
    with pytest.raises(SettingError, match="COSTAPP_TEST must be a whole number from 0 on"):
        env.number("COSTAPP_TEST", 1)


def test_a_list_is_separated_by_commas(monkeypatch):
    monkeypatch.setenv("COSTAPP_TEST", " a.example, b.example ,,")
    assert env.names("COSTAPP_TEST") == ["a.example", "b.example"]
