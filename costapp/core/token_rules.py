"""Which clients count cached tokens inside their input number: a table, because it is knowledge, not logic."""

from typing import NamedTuple

from costapp.core.values import UsageShape


class TokenRule(NamedTuple):
    """One line of the table: spans of this scope, version range and provider have this shape."""

    name: str
    shape: UsageShape
    scope: str = "*"
    provider: str = "*"


class TokenRules:
    """An ordered table of rules; the first match decides."""

    def __init__(self, rules: tuple[TokenRule, ...] = ()) -> None:
        self._rules = rules


DEFAULT = TokenRules()
