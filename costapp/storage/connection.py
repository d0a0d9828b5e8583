"""One way to open a database connection for jobs: autocommit, binary, guarded against hanging."""

import psycopg
from psycopg import errors

#: Another worker was in the way; the same transaction succeeds when tried again.
RETRYABLE = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable)

# What jobs write can be made again, and a transaction that a crash of the server loses takes the deletion of
# its marks with it: so there is no need to wait for the disk at each commit.
_SESSION = (
    "-c synchronous_commit=off -c jit=off -c timezone=UTC"
    " -c idle_in_transaction_session_timeout=60000 -c statement_timeout=600000"
)


def connect(url: str, *, application_name: str = "costapp-jobs") -> psycopg.Connection:
    """An autocommit connection: every ``conn.transaction()`` is then a real transaction, never a savepoint.

    Compiling queries (jit) costs more than it saves in statements that take milliseconds.
    """
    return psycopg.connect(url, autocommit=True, application_name=application_name, options=_SESSION)


def require_autocommit(conn: psycopg.Connection) -> None:
    """Inside an outer transaction locks would be kept, and marks given back, at the wrong moment."""
    if not conn.autocommit or conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise RuntimeError("Jobs need an autocommit connection outside any transaction.")
