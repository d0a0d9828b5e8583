"""A budget set in the admin, spans of a real SDK, and the right messages once: the whole product, as people run it.

Everything is real: the processes of `make run`, the browser, OpenTelemetry's SDK, a web server that answers as Slack
does and a mail server. Nothing is sped up.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from playwright.sync_api import Page, sync_playwright

from benchmarks.stack import Stack, running
from tests.alerts.servers import Mailbox, Receiver, eventually, http_receiver, mail_server
from tests.browser_setup import find

LIMIT_S = 60.0  # the product takes seconds; the machine may be busy
CALL_NANO = 1000 * 150 + 100 * 600  # gpt-4o-mini: $0.15 and $0.60 per million tokens


class World(SimpleNamespace):
    stack: Stack
    slack: Receiver
    mailbox: Mailbox
    page: Page
    conn: psycopg.Connection[Any]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.stack.web_port}{path}"

    def count(self, query: str) -> int:
        row = self.conn.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def mails(self) -> list[Any]:
        return [message_from_bytes(each.content, policy=policy.default) for each in self.mailbox.messages]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with (
        pytest.MonkeyPatch.context() as patch, http_receiver() as slack, mail_server() as (mailbox, mail_port),
        sync_playwright() as playwright,
    ):  # fmt: skip
        patch.setenv("COSTAPP_ALLOW_PRIVATE_TARGETS", f"127.0.0.1/32:{slack.port}")
        patch.setenv("COSTAPP_EMAIL_HOST", "127.0.0.1")
        patch.setenv("COSTAPP_EMAIL_PORT", str(mail_port))
        patch.setenv("COSTAPP_EMAIL_SECURITY", "none")
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox"])
        with running() as stack, psycopg.connect(stack.database_url, autocommit=True) as conn:
            page = browser.new_page()
            page.set_default_timeout(15_000)
            made = World(stack=stack, slack=slack, mailbox=mailbox, page=page, conn=conn)
            sign_in(made)
            add_channels(made)
            yield made
        browser.close()


def sign_in(world: World) -> None:
    world.page.goto(world.url("/sign-in/"))
    world.page.fill("input[name=username]", world.stack.user)
    world.page.fill("input[name=password]", world.stack.password)
    world.page.get_by_role("button", name="Sign in").click()


def add_channels(world: World) -> None:
    secret = world.slack.url("ok")
    for kind, name, field, value in (
        ("slack_webhook", "#finops", "url", secret), ("email", "Finance", "to", "lead@example.com"),
    ):  # fmt: skip
        world.page.goto(world.url(f"/admin/costapp/channel/add/?kind={kind}"))
        fill(world, name=name, **{field: value})
        assert secret not in world.page.content()


def fill(world: World, **values: str) -> None:
    """Fill an add form of the admin, choose all channels there are, and save it."""
    page = world.page
    page.select_option("#id_project", label="My project")
    for name, value in values.items():
        element = page.locator(f"#id_{name}")
        if element.evaluate("each => each.tagName") == "SELECT":
            element.select_option(value)
        else:
            element.fill(value)
    if page.locator("#id_channels_from").count():
        page.select_option("#id_channels_from", [each or "" for each in channel_values(page)])
        page.click("#id_channels_add")
    page.click("input[name=_save]")
    page.locator(".messagelist .success, .errornote").first.wait_for()
    errors = page.locator(".errornote, .errorlist").all_inner_texts()
    assert not errors, errors


def channel_values(page: Page) -> list[str]:
    return list(page.locator("#id_channels_from option").evaluate_all("all => all.map(each => each.value)"))


def call_models(world: World, count: int, **attributes: str) -> None:
    """As an instrumented app does it: OpenTelemetry's SDK, a batch processor, OTLP over HTTP."""
    exporter = OTLPSpanExporter(
        f"http://127.0.0.1:{world.stack.http_port}/v1/traces", headers={"authorization": f"Bearer {world.stack.key}"}
    )
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("scenario")
    usage = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100,
    }  # fmt: skip
    for _ in range(count):
        with tracer.start_as_current_span("chat gpt-4o-mini", kind=trace.SpanKind.CLIENT) as span:
            span.set_attributes(usage | {name.replace("__", "."): value for name, value in attributes.items()})
    provider.shutdown()


def slack_texts(world: World, about: str) -> list[str]:
    found = [json.dumps(json.loads(each.body), ensure_ascii=False) for each in world.slack.received]
    return [text for text in found if about in text]


def mail_texts(world: World, about: str) -> list[str]:
    texts = [
        f"{mail['subject']}\n{mail.get_body(('plain',)).get_content()}"
        for mail in world.mails()
    ]  # fmt: skip
    return [text for text in texts if about in text]


def quiet(world: World) -> None:
    """Until two more evaluations have run and nothing is waiting to be sent: what would be sent twice has been."""
    since = datetime.now(UTC)
    eventually(
        lambda: (
            world.conn.execute("select count(*) from budget_period where evaluated_at > %s", (since,)).fetchone()
            != (0,)
            and world.count("select count(*) from notification where state = 'pending'") == 0
        ),
        LIMIT_S,
    )


def test_a_budget_set_in_the_admin_is_told_once_to_slack_and_by_mail_with_the_number_of_the_page(world: World) -> None:
    world.page.goto(world.url("/admin/costapp/budget/add/"))
    fill(world, name="Checkout helper", dimension="feature", values="checkout-helper", amount_nano="0.01")
    call_models(world, 60, app__feature="checkout-helper", user__id="ann", session__id="s-1")
    call_models(world, 5, app__feature="something-else", session__id="s-2")
    eventually(lambda: slack_texts(world, "Checkout helper") and mail_texts(world, "Checkout helper"), LIMIT_S)

    spent = f"${60 * CALL_NANO / 10**9:.4f}".rstrip("0")
    assert spent == "$0.0126"
    [slack], [mail] = slack_texts(world, "Checkout helper"), mail_texts(world, "Checkout helper")
    for text in (slack, mail):
        assert "over its budget" in text
        assert spent in text
        assert "$0.01" in text
    [link] = {
        each for each in re.findall(r'https?://[^\s"<>\\]+', mail) if "/p/default/" in each and "checkout" in each
    }
    parts = urlsplit(link)
    world.page.goto(world.url(f"{parts.path}?{parts.query}"))
    assert spent in world.page.inner_text("main")
    world.page.goto(world.url("/p/default/budgets/"))
    assert spent in world.page.inner_text("main")
    world.page.goto(world.url("/p/default/alerts/"))
    assert "Checkout helper" in world.page.inner_text("main")

    call_models(world, 5, app__feature="checkout-helper", user__id="ann", session__id="s-1")
    eventually(
        lambda: world.count("select coalesce(max(spent_nano), 0) from budget_reading") == 65 * CALL_NANO, LIMIT_S
    )
    quiet(world)
    assert len(slack_texts(world, "Checkout helper")) == 1
    assert len(mail_texts(world, "Checkout helper")) == 1
    assert world.count("select count(*) from notification where state = 'sent'") == 2


def test_a_runaway_session_is_blocked_and_told_once(world: World) -> None:
    world.page.goto(world.url("/admin/costapp/guardrail/add/"))
    fill(world, name="Circles", limit_value="20", minutes="5", action="block", level="critical")
    assert ask(world, "s-loop")["decision"] == "allow"
    for _ in range(3):
        call_models(world, 8, app__feature="agent", session__id="s-loop")
    eventually(lambda: ask(world, "s-loop")["decision"] == "block", LIMIT_S)
    assert re.match(
        r"Session s-loop made 2\d calls within 5 minutes; the limit is 20 calls.", ask(world, "s-loop")["reason"]
    )
    assert ask(world, "s-other")["decision"] == "allow"
    eventually(lambda: slack_texts(world, "s-loop") and mail_texts(world, "s-loop"), LIMIT_S)
    call_models(world, 10, app__feature="agent", session__id="s-loop")
    eventually(lambda: world.count("select max(value) from guard_state") == 34, LIMIT_S)
    quiet(world)
    assert len(slack_texts(world, "s-loop")) == 1
    assert len(mail_texts(world, "s-loop")) == 1


def ask(world: World, session: str) -> Any:
    url = f"http://127.0.0.1:{world.stack.http_port}/api/v1/guard?feature=agent&session={session}"
    with urlopen(Request(url, headers={"x-api-key": world.stack.key}), timeout=5) as answer:
        return json.load(answer)
