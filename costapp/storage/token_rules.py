"""A project's own rules for what token counts mean, before the built-in ones."""

from functools import lru_cache
from typing import Any

import msgspec
import psycopg

from costapp.core.token_rules import DEFAULT, TokenRules, parse_rules


def load_token_rules(conn: psycopg.Connection[Any], project_id: int) -> TokenRules:
    """The rules by which this project's counts are read."""
    row = conn.execute("select token_rules::text from costapp_project where id = %s", (project_id,)).fetchone()
    return _compiled(row[0]) if row else DEFAULT


@lru_cache(maxsize=1000)
def _compiled(document: str) -> TokenRules:
    own = parse_rules(msgspec.json.decode(document))
    return DEFAULT.extended(own) if own else DEFAULT
