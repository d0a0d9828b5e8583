"""Failed sign-ins per account and address, in the database: every web process sees the same count.

The wait doubles with each failure after the first few and is forgotten after a day or a success. It binds
account and address together, so a stranger cannot lock an owner out from elsewhere.
"""

from typing import Any

import psycopg

FREE_FAILURES = 4
LONGEST_WAIT_S = 900
FORGET_AFTER_S = 86_400


def wait_s(conn: psycopg.Connection[Any], *, account: str, address: str) -> int:
    """Seconds until the next attempt is allowed; 0 = now."""
    row = conn.execute(
        """select ceil(extract(epoch from last_at - clock_timestamp())
                       + least(power(2, least(failures - %(free)s, 20)), %(longest)s))::int
           from sign_in_failure where account = %(account)s and address = %(address)s and failures > %(free)s
             and last_at > clock_timestamp() - make_interval(secs => %(forget)s)""",
        {
            "account": account,
            "address": address,
            "free": FREE_FAILURES,
            "longest": LONGEST_WAIT_S,
            "forget": FORGET_AFTER_S,
        },
    ).fetchone()
    return max(0, row[0]) if row else 0


def add(conn: psycopg.Connection[Any], *, account: str, address: str) -> None:
    """Counts one failure, and drops what is too old to matter."""
    conn.execute(
        "delete from sign_in_failure where last_at < clock_timestamp() - make_interval(secs => %s)", (FORGET_AFTER_S,)
    )
    conn.execute(
        """insert into sign_in_failure (account, address, failures, last_at) values (%s, %s, 1, clock_timestamp())
           on conflict (account, address) do update
           set failures = sign_in_failure.failures + 1, last_at = excluded.last_at""",
        (account, address),
    )


def forget(conn: psycopg.Connection[Any], *, account: str, address: str) -> None:
    conn.execute("delete from sign_in_failure where account = %s and address = %s", (account, address))
