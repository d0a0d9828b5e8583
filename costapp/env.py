"""Reading settings from the environment, with a type and a sentence when the value is wrong. No Django.

A name that is not in the environment is looked up in the file that a running `make run` keeps in its data home, so that
`manage.py` in another terminal works on the same database without being told where it is.
"""

import os
from functools import cache
from pathlib import Path

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


class SettingError(ValueError):
    """The value of an environment variable cannot be used; the message says which, and what it should be."""


def text(name: str, default: str = "") -> str:
    found = given(name)
    return running_instance().get(name, default) if found is None else found


def given(name: str) -> str | None:
    """The value in the environment, or the content of the file named in NAME_FILE (for container secrets)."""
    if name in os.environ:
        return os.environ[name]
    if not (path := os.environ.get(f"{name}_FILE")):
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingError(f"{name}_FILE is {path}, which cannot be read: {error.strerror}.") from error


def flag(name: str, *, default: bool = False) -> bool:
    value = text(name, str(default)).strip().lower()
    if value not in TRUE | FALSE:
        raise SettingError(f"{name} must be 1 or 0, not {value!r}.")
    return value in TRUE


def number(name: str, default: int, *, least: int = 0) -> int:
    return whole(name, text(name, str(default)), least=least)


def whole(name: str, value: str, *, least: int = 0) -> int:
    value = value.strip()
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise SettingError(f"{name} must be a whole number from {least} on, not {value!r}.")
    return int(value)


def names(name: str, default: str = "") -> list[str]:
    """A comma-separated list."""
    return [item.strip() for item in text(name, default).split(",") if item.strip()]


def default_home() -> Path:
    """COSTAPP_HOME, else a folder of the user's own. Root's is outside /root: the database's account must get in."""
    if os.environ.get("COSTAPP_HOME"):
        return Path(os.environ["COSTAPP_HOME"])
    if os.geteuid() == 0:
        return Path("/var/lib/costapp")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "costapp"


@cache
def running_instance() -> dict[str, str]:
    """What the supervisor wrote for other processes of this home; empty when none runs or we may not read it."""
    try:
        lines = (default_home() / "env").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)
