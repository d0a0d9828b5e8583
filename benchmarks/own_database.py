"""A database of a benchmark's own on the server that DATABASE_URL names."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from psycopg import sql


@contextmanager
def own_database(name: str) -> Iterator[None]:
    """Made anew, named by DATABASE_URL for what runs inside, dropped afterwards."""
    server, database = os.environ["DATABASE_URL"], sql.Identifier(name)
    drop = sql.SQL("drop database if exists {} with (force)").format(database)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(drop)
        admin.execute(sql.SQL("create database {}").format(database))
        try:
            os.environ["DATABASE_URL"] = urlsplit(server)._replace(path=f"/{name}").geturl()
            yield
        finally:
            admin.execute(drop)
