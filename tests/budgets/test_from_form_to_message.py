"""A budget is set in the admin in a browser; spans come in over OTLP; the page, Slack and a mailbox say the same.

Everything is real: Chromium, a collector process, PostgreSQL, the jobs, an HTTP server that answers as Slack does and
a mail server.
"""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connections
from django.test import Client
from playwright.sync_api import Page, sync_playwright
from psycopg.conninfo import make_conninfo

from costapp.models import Budget, IngestKey, Membership, Project
from costapp.services.deliver import Courier
from costapp.services.drain import drain
from costapp.services.evaluate_budgets import evaluate_due
from tests import pipeline
from tests.alerts.conftest import add_channel, deliver, field_keys, receiver  # noqa: F401
from tests.alerts.servers import mail_server
from tests.browser_setup import find
from tests.collectors.conftest import Collector
from tests.web.test_browser import Quiet, listen


@pytest.fixture
def site(project: Project) -> Iterator[tuple[str, Any]]:
    """The pages behind a socket, and the cookie of an owner who is no superuser."""
    owner = get_user_model().objects.create_user("olga", is_staff=True)
    Membership.objects.create(project=project, user=owner, role=Membership.Role.OWNER)
    client = Client()
    client.force_login(owner)
    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.daemon_threads = False  # closing waits for requests in flight: they hold database connections
    server.set_app(StaticFilesHandler(WSGIHandler()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = django_settings.SESSION_COOKIE_NAME
    url = f"http://127.0.0.1:{server.server_port}"
    yield url, {"name": name, "value": client.cookies[name].value, "url": url}
    server.shutdown()
    server.server_close()


@pytest.fixture
def tab(site: tuple[str, Any]) -> Iterator[Page]:
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright keeps an event loop in this thread, where Django would refuse to work.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        context.add_cookies([site[1]])
        page = context.new_page()
        page.complaints = []
        listen(page)
        yield page
        browser.close()
        connections.close_all()


@pytest.fixture
def collector() -> Iterator[Collector]:
    database = make_conninfo(django_settings.DATABASE_URL, dbname=connections["default"].settings_dict["NAME"])
    process = Collector(database)
    yield process
    process.stop()


def export(calls: int, first: int) -> dict[str, Any]:
    """An OTLP request of so many calls of the feature support-bot, a cent each: 4,000 tokens at $2.50 a million."""
    now_ns = int(datetime.now(UTC).timestamp() * 1e9) - 2 * 10**9
    said = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o", "app.feature": "support-bot",
    }  # fmt: skip
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in said.items()]
    attributes += [
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "4000"}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "0"}},
    ]
    spans = [
        {
            "traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": "chat gpt-4o", "kind": 3,
            "startTimeUnixNano": str(now_ns), "endTimeUnixNano": str(now_ns + 10**9), "attributes": attributes,
        }
        for number in range(first, first + calls)
    ]  # fmt: skip
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


def run_jobs(conn: psycopg.Connection[Any], courier: Courier) -> None:
    drain(conn)
    evaluate_due(conn)
    deliver(conn, courier)


def test_from_the_form_to_the_message(conn, project, tab, site, collector, receiver, settings):  # noqa: F811
    settings.PUBLIC_URL = site[0]
    courier = Courier(pipeline.open_connection, lambda: datetime.now(UTC))
    with mail_server() as (mailbox, port):
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", port, False
        add_channel(project, "slack_webhook", name="#finops", url=receiver.url("ok"))
        add_channel(project, "email", name="Finance", config={"to": ["finance@acme.example"]})
        set_budget(tab, site[0])
        _, key = IngestKey.issue(project, "app")
        for calls, first in ((70, 1), (15, 100), (40, 200)):  # $0.70, $0.85, $1.25 of $1.00
            assert collector.post(key, export(calls, first)).status == 200
            for _ in range(3):  # what the jobs do again changes nothing
                run_jobs(conn, courier)
        slack = [each.body.decode() for each in receiver.answered("ok")]
        mails = [str(message_from_bytes(each.content, policy=policy.default).get_body(("plain",)).get_content())
                 for each in mailbox.messages]  # fmt: skip
    courier.pool.shutdown()
    assert len(slack) == len(mails) == 2
    assert "support-bot has spent $0.85 of $1.00 (85 %)" in slack[0]
    assert "support-bot is over its budget" in slack[1]
    assert "$1.25 of $1.00 (125 %)" in slack[1]
    assert "$1.25 of $1.00 (125 %)" in mails[1]
    see_pages(tab, site[0], slack[1])


def set_budget(tab: Page, url: str) -> None:
    tab.goto(f"{url}/p/acme/budgets/")
    tab.get_by_role("link", name="Set the first budget").click()
    tab.get_by_label("Name:").fill("Each feature")
    tab.get_by_label("For:").select_option("feature")
    tab.get_by_label("Amount in US dollars:").fill("1.00")
    tab.get_by_label("Tell at:").fill("80 %, 100 %")
    tab.get_by_role("link", name="Choose all channels").or_(
        tab.get_by_role("button", name="Choose all channels")
    ).click()
    tab.get_by_role("button", name="Save", exact=True).click()
    tab.wait_for_url("**/admin/costapp/budget/")
    budget = Budget.objects.get()
    assert (budget.amount_nano, budget.channels.count()) == (10**9, 2)


def see_pages(tab: Page, url: str, message: str) -> None:
    """The bar, the page behind it and the page that the message leads to have the number of the message."""
    tab.goto(f"{url}/p/acme/budgets/")
    row = tab.locator("table.burns tbody tr")
    assert row.count() == 1
    assert "Over" in row.inner_text()
    assert row.locator("td .money").first.get_attribute("title") == "$1.250000000"
    assert tab.complaints == []
    [link] = set(re.findall(r"http://127\.0\.0\.1:\d+(/p/acme/feature/[^\"|>\\]+)", message.replace("&amp;", "&")))
    tab.goto(url + link)
    assert tab.locator("dl.state .lead .money").get_attribute("title") == "$1.250000000"
    assert "Each feature" in tab.locator("#budget-burn").locator("..").locator("..").locator("..").inner_text()
    tab.goto(f"{url}/p/acme/alerts/")
    assert "support-bot is over its budget" in tab.content()


def test_a_channel_is_added_and_tried_in_the_admin(conn, project, tab, site, receiver):  # noqa: F811
    for name, path, said in (("#finops", "ok", "was sent"), ("#gone", "revoked", "was not sent. Slack answered 404")):
        tab.goto(f"{site[0]}/admin/costapp/channel/add/")
        tab.get_by_role("link", name="Slack (incoming webhook)").click()
        tab.get_by_label("Name:").fill(name)  # the project is chosen: the owner has one
        tab.get_by_label("Webhook address:").fill(receiver.url(path))
        tab.get_by_role("button", name="Save and continue editing").click()
        tab.get_by_role("button", name="Send a test message").click()
        assert f"The test message {said}" in tab.locator(".messagelist").inner_text()
        assert receiver.url(path) not in tab.content()
    [told] = receiver.answered("ok")
    assert "Test message from Costapp: #finops works." in told.body.decode()
    tab.locator("#content-main").get_by_role("link", name="Delivery log").click()
    tab.wait_for_url("**/costapp/notification/**")
    assert tab.locator("#result_list tbody tr").count() == 1
    assert "failed" in tab.locator("#result_list tbody tr").inner_text().lower()
    assert tab.complaints == []
