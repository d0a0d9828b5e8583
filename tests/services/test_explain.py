"""``manage.py explain``: what was charged, what was not, and why."""

import pytest
from django.core.management import CommandError, call_command

from costapp.services.drain import drain
from tests.pipeline import call, fingerprint, price, root, store, trace_id


@pytest.fixture(autouse=True)
def _database(conn, settings):
    settings.DATABASE_URL = conn.info.dsn + f" password={conn.info.password}"


def test_every_span_of_a_trace_and_of_its_twins_has_a_verdict(conn, project, capsys):
    price(project)
    store(conn, [root(1, feature="search"), call(1, response_id="same")], project_id=project.id)
    store(conn, [call(2, 7, parent=0, response_id="same", scope="proxy")], project_id=project.id)
    drain(conn)
    before = fingerprint(conn)
    call_command("explain", trace_id(1).hex())
    text = capsys.readouterr().out
    assert "Project Acme" in text
    assert trace_id(1).hex() in text
    assert trace_id(2).hex() in text
    assert "plain" in text
    assert "charged" in text
    assert "merged into" in text
    assert "feature search" in text
    assert "1,000 input tokens × $2.5" in text
    assert "Booked: $0.0035" in text
    assert fingerprint(conn) == before


def test_a_trace_that_is_not_attributed_yet_says_so(conn, project, capsys):
    store(conn, [call(1)], project_id=project.id)
    call_command("explain", trace_id(1).hex())
    assert "waits to be attributed" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["xyz", "12", "zz" * 16])
def test_something_else_than_a_trace_id_is_refused_in_words(text):
    with pytest.raises(CommandError, match="is not a trace id"):
        call_command("explain", text)


def test_an_unknown_trace_is_an_error(conn):
    with pytest.raises(CommandError, match="No span"):
        call_command("explain", "ab" * 16)
