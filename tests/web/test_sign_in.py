"""Signing in and out, and what happens to somebody who guesses."""

import pytest
from django.test import Client

from costapp.storage import sign_in_failures
from tests.web.conftest import PASSWORD, add_member

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def owner(project):
    return add_member(project, name="mia")


@pytest.fixture
def member(conn, owner):
    conn.execute("truncate sign_in_failure")
    return owner


def attempt(client, password, **more):
    return client.post("/sign-in/", {"username": "mia", "password": password, **more})


def test_the_right_password_leads_to_the_project(member):
    client = Client()
    answer = attempt(client, PASSWORD)
    assert answer["Location"] == "/"
    assert client.get("/")["Location"] == "/p/acme/"


def test_a_wrong_password_is_401_and_says_so(member):
    answer = attempt(Client(), "wrong")
    assert answer.status_code == 401
    assert b"do not match" in answer.content


def test_after_a_few_failures_even_the_right_password_must_wait(member):
    client = Client()
    for _ in range(sign_in_failures.FREE_FAILURES + 1):
        assert attempt(client, "wrong").status_code == 401
    answer = attempt(client, PASSWORD)
    assert answer.status_code == 429
    assert int(answer["Retry-After"]) >= 1


def test_the_wait_binds_the_address_so_that_strangers_cannot_lock_an_owner_out(member):
    for _ in range(sign_in_failures.FREE_FAILURES + 3):
        attempt(Client(REMOTE_ADDR="203.0.113.9"), "wrong")
    assert attempt(Client(REMOTE_ADDR="198.51.100.1"), PASSWORD).status_code == 302


def test_the_wait_doubles_and_has_an_end(conn, member):
    waits = []
    for _ in range(30):
        sign_in_failures.add(conn, account="mia", address="a")
        waits.append(sign_in_failures.wait_s(conn, account="mia", address="a"))
    assert waits[: sign_in_failures.FREE_FAILURES] == [0] * sign_in_failures.FREE_FAILURES
    assert waits == sorted(waits)
    assert waits[-1] == sign_in_failures.LONGEST_WAIT_S


def test_a_success_forgets_the_failures(conn, member):
    client = Client()
    attempt(client, "wrong")
    attempt(client, PASSWORD)
    assert conn.execute("select count(*) from sign_in_failure").fetchone() == (0,)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_sign_in_never_sends_anybody_elsewhere(member, target):
    assert attempt(Client(), PASSWORD, next=target)["Location"] == "/"


def test_signing_out_needs_a_post_and_ends_the_session(member):
    client = Client()
    client.force_login(member)
    assert client.get("/sign-out/").status_code == 405
    client.post("/sign-out/")
    assert client.get("/p/acme/").status_code == 302
