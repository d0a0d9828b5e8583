"""Kinds of calls: the texts that many charges share, stored once per month and referred to by a number.

A project makes millions of calls but few kinds of them: the same service asks the same model with the same
prompt version from the same span. Their sixteen texts took a third of a charge. People and sessions are
not part of a kind, there are too many of them. A kind belongs to one month, so it expires with its charges.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import psycopg
from psycopg import sql

from costapp.storage.arrays import uuids

#: Longest text of a dimension: an index row holds no more than about 2,700 bytes.
TEXT_LIMIT = 500

#: Columns of charge_kind -> fields of `Call` have the same names.
COLUMNS = (
    "team", "environment", "service", "span_name", "operation", "provider", "model", "variant", "prompt_version",
    "model_requested", "service_tier", "region", "unit", "finish_reason", "usage_rule", "reported_source",
)  # fmt: skip
_MODEL, _REQUESTED = COLUMNS.index("model"), COLUMNS.index("model_requested")


class Kind(NamedTuple):
    """What a charge has in common with others of its month."""

    digest: bytes  # 16 bytes, of the month and the texts
    month: date  # its first day
    texts: tuple[str, ...]  # in the order of COLUMNS; "" = not known


@lru_cache(maxsize=65_536)
def stored_text(value: str) -> str:
    """A text as it is stored: PostgreSQL knows no NUL, and an index row has a limit."""
    return value.replace("\0", "")[:TEXT_LIMIT]


@lru_cache(maxsize=16_384)
def kind_of(month: date, stated: tuple[str, ...]) -> Kind:
    """The kind of a call that states these texts. A model that answered as asked is not stored twice."""
    texts = [stored_text(text) for text in stated]
    if texts[_REQUESTED] == texts[_MODEL]:
        texts[_REQUESTED] = ""
    digest = blake2b("\0".join((month.isoformat(), *texts)).encode(), digest_size=16).digest()
    return Kind(digest, month, tuple(texts))


_KNOWN = "select uuid_send(digest), id from charge_kind where project_id = %s and digest = any(%s)"
# In the order of digests, so that two workers that add the same kinds wait for each other instead of deadlocking.
_ADD = sql.SQL("""
insert into charge_kind (project_id, digest, month, {columns})
select %s, * from unnest(%s::uuid[], %s::date[], {arrays}) as added (digest, month, {columns}) order by digest
on conflict (project_id, digest) do nothing
""").format(
    columns=sql.SQL(", ").join(map(sql.Identifier, COLUMNS)), arrays=sql.SQL(", ").join([sql.SQL("%s::text[]")] * 16)
)


def kind_ids(conn: psycopg.Connection, project_id: int, *, kinds: Iterable[Kind]) -> dict[bytes, int]:
    """The numbers of these kinds by digest; unknown ones are added. Not kept: a transaction may be rolled back."""
    wanted = {kind.digest: kind for kind in kinds}
    known = _known(conn, project_id, wanted)
    missing = [kind for digest, kind in wanted.items() if digest not in known]
    if missing:
        texts = zip(*(kind.texts for kind in missing), strict=True)
        digests = uuids([kind.digest for kind in missing])
        conn.execute(_ADD, (project_id, digests, [kind.month for kind in missing], *map(list, texts)))
        known |= _known(conn, project_id, [kind.digest for kind in missing])
    return known


def _known(conn: psycopg.Connection, project_id: int, digests: Iterable[bytes]) -> dict[bytes, int]:
    rows = conn.cursor(binary=True).execute(_KNOWN, (project_id, uuids(list(digests))))
    return dict(rows.fetchall())


#: A worker may still be writing charges of a month whose partition is dropped: its kinds stay a little longer.
_GRACE = timedelta(days=31)


def drop_before(conn: psycopg.Connection, *, day: date) -> None:
    """Forget the kinds of months whose charges were dropped."""
    conn.execute("delete from charge_kind where month < %s", ((day - _GRACE).replace(day=1),))
