"""The pages in a real Chromium: no console error, no axe violation, nothing wider than the screen."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db import connections
from playwright.sync_api import Browser, Page, sync_playwright

from costapp.core.ids import span_id_text
from costapp.models import AlertRule, Budget, IngestKey
from costapp.services.evaluate_budgets import evaluate_due
from costapp.services.evaluate_rules import evaluate_rules
from costapp.storage.anomalies import Found, write
from tests.browser_setup import find
from tests.web.conftest import EVIL

pytestmark = pytest.mark.django_db

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
SCREENS = [(1440, "light"), (380, "dark")]


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Says nothing: the test says what matters."""


class Site(NamedTuple):
    url: str
    cookie: dict[str, str]
    pages: dict[str, str]


def show_an_anomaly(world) -> None:
    """One with everything a card can have: a band, drivers, parts, a session, and a name that wants to be run."""
    start = world.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=50)
    hours = [start + timedelta(hours=i) for i in range(48)]
    cost = [10**9 * (5 if 30 <= i < 34 else 1) for i in range(48)]
    level = [10**9] * 48
    course = {
        "at": [at.isoformat() for at in hours], "cost_nano": cost, "expected_nano": level,
        "low_nano": [None, *level[1:]], "high_nano": [None, *(2 * each for each in level[1:])],
    }  # fmt: skip
    found = Found(
        0, "feature", EVIL, "cache_stopped", "open", hours[30], hours[31], hours[32], hours[34], 7100, 16 * 10**9,
        12 * 10**9, 20 * 10**9, False, f"{EVIL} costs $16.00 above expected since 14:05: it reads less from the cache.",
        {
            "drivers": [{"where": {"model": "gpt-4o", "team": "core"}, "actual_nano": 20 * 10**9,
                         "expected_nano": 4 * 10**9, "share_percent": 100, "new": True}],
            "alike": False, "user": {"user": "u-1", "session": "s-1", "cost_nano": 9 * 10**9},
            "parts": {"volume": 10**9, "mix": 0, "prompt": -(10**8), "output": 0, "cache": 15 * 10**9, "price": 0,
                      "other": 10**8},
            "window": [hours[30].isoformat(), hours[34].isoformat()],
            "before": [hours[6].isoformat(), hours[10].isoformat()], "signal": "misses", "course": course,
            "members": [["model", "gpt-4o"], ["", ""]],
        },
        "budget",
    )  # fmt: skip
    write(world.conn, world.project.pk, [found], world.now)


@pytest.fixture(scope="module")
def site(world) -> Iterator[Site]:
    """The company's pages behind a socket, and the session of a signed-in superuser of it."""
    world.member.is_staff = world.member.is_superuser = True
    world.member.save()
    Budget.objects.create(project=world.project, name="Each feature", amount_nano=10**7, dimension="feature")
    Budget.objects.create(project=world.project, name="All of it", amount_nano=10**12)
    evaluate_due(world.conn)
    key, _ = IngestKey.issue(world.project, "a key that was used")
    IngestKey.objects.filter(pk=key.pk).update(last_used_at=key.created_at)  # its table is wider than a phone
    client = world.client()
    cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
    trace, span = world.conn.execute("select trace_id, span_id from charge order by start_at limit 1").fetchone()
    rule = AlertRule.objects.create(
        project=world.project, name="Dear features", by="feature", window="24h", warning="0.001", critical="1"
    )
    evaluate_rules(world.conn)
    alert = world.scalar("select max(id) from alert")
    show_an_anomaly(world)
    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.daemon_threads = False  # closing waits for requests in flight: they hold database connections
    server.set_app(StaticFilesHandler(WSGIHandler()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    call = f"/p/acme/trace/{trace.hex}/{span_id_text(span)}/"
    pages = {
        "sign-in": "/sign-in/", "overview": "/p/acme/?range=30d", "overview-hours": "/p/acme/?range=24h&by=model",
        "overview-users": "/p/acme/?range=30d&by=user", "nothing-found": "/p/acme/?range=30d&feature=none",
        "feature": "/p/acme/feature/?is=checkout&range=30d", "user": "/p/acme/user/?is=u-1&range=30d",
        "model": "/p/acme/model/?is=nobody-knows-1&range=30d", "calls": "/p/acme/calls/?range=30d",
        "session": "/p/acme/session/?is=s-1", "trace": f"/p/acme/trace/{trace.hex}/", "call": call,
        "budgets": "/p/acme/budgets/",
        "anomalies": "/p/acme/anomalies/?range=30d", "what-changed": "/p/acme/what-changed/?range=7d",
        "health": "/p/acme/health/?range=30d", "alerts": "/p/acme/alerts/", "alert": f"/p/acme/alerts/{alert}/",
        "new-rule": "/p/acme/alerts/rules/new/?use=dear-answers", "rule": f"/p/acme/alerts/rules/{rule.pk}/",
        "connect": "/p/acme/connect/", "missing": "/p/acme/trace/00/",
        "admin": "/admin/", "admin-keys": "/admin/costapp/ingestkey/add/",
    }  # fmt: skip
    yield Site(url, {"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": url}, pages)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(site) -> Iterator[Browser]:
    path = find()
    if path is None:
        pytest.fail("No Chromium found: run `python -m tests.browser_setup`, or set COSTAPP_CHROMIUM.")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright keeps an event loop in this thread, where Django then refuses the test's own transaction.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()
        connections.close_all()  # those of this thread while the loop runs are others than without it


@pytest.fixture
def tab(browser, site) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_cookies([site.cookie])
    page = context.new_page()
    page.complaints = []
    listen(page)
    yield page
    context.close()


def listen(page: Page) -> None:
    page.on("console", lambda said: page.complaints.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))


def show(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_load_state("load")
    if page.locator("[data-figure]").count():
        page.wait_for_selector("[data-figure][data-ready]")


def violations(page: Page) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)["violations"]
    return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"][:3]]


@pytest.mark.parametrize(("width", "theme"), SCREENS)
def test_every_page_is_clean_accessible_and_fits(browser, site, width, theme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
    page = context.new_page()
    page.complaints, wrong = [], {}
    listen(page)
    for name, path in site.pages.items():
        show(page, site.url + path)
        expected = (
            {"Failed to load resource: the server responded with a status of 404 (Not Found)"}
            if name == "missing"
            else set()
        )
        problems = [text for text in page.complaints if text not in expected]
        page.complaints.clear()
        if not name.startswith("admin"):  # the admin's own markup is Django's
            problems += violations(page)
            if page.evaluate("document.documentElement.scrollWidth") > width:
                problems.append("wider than the screen")
        if problems:
            wrong[name] = problems
        context.add_cookies([site.cookie])  # the first page, sign-in, was seen as nobody
    context.close()
    assert wrong == {}


def test_a_bar_of_the_chart_leads_to_the_calls_behind_it(tab, site):
    show(tab, site.url + site.pages["overview"])
    bar = tab.locator(".bars .point path").nth(26)  # of the dearest feature, three days ago
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_url("**/calls/**")
    assert "from=" in tab.url
    assert "feature=" in tab.url
    assert tab.locator("tbody tr").count() > 0


def test_the_chart_has_a_table_that_says_the_same_by_keyboard_alone(tab, site):
    show(tab, site.url + site.pages["overview"])
    tab.locator("details.data > summary").focus()
    tab.keyboard.press("Enter")
    assert tab.locator("details.data table tbody tr").count() == 30


def test_a_split_is_changed_in_place_and_the_back_button_returns(tab, site):
    show(tab, site.url + site.pages["overview"])
    tab.evaluate("window.untouched = true")
    tab.locator("summary", has_text="Split by feature").click()
    tab.get_by_role("link", name="Model", exact=True).click()
    tab.wait_for_selector("h2:has-text('By model')")
    assert tab.evaluate("window.untouched")
    assert "by=model" in tab.url
    tab.wait_for_selector("[data-figure][data-ready]")
    tab.go_back()
    tab.wait_for_selector("h2:has-text('By feature')")
    tab.wait_for_selector("[data-figure][data-ready]")
    assert "by=model" not in tab.url
    assert tab.complaints == []


def test_the_chosen_theme_is_in_the_first_byte_of_the_next_page(tab, site):
    show(tab, site.url + site.pages["overview"])
    tab.locator("[data-theme-toggle]").click()
    answer = tab.goto(site.url + site.pages["calls"])
    assert 'data-theme="dark"' in answer.text()
    assert tab.locator("[data-theme-toggle]").get_attribute("aria-pressed") == "true"


def test_the_first_tab_stop_skips_to_the_content(tab, site):
    show(tab, site.url + site.pages["overview"])
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"


def test_a_removed_filter_chip_widens_the_page(tab, site):
    show(tab, site.url + "/p/acme/?range=30d&model=gpt-4o")
    tab.get_by_role("link", name="Remove the filter Model: gpt-4o").click()
    tab.wait_for_url(lambda url: "model=" not in url)
    assert tab.locator(".chip").count() == 0


def test_waiting_turns_green_when_telemetry_arrives(tab, site, world):
    show(tab, site.url + site.pages["connect"])
    assert "Waiting for the first span" in tab.locator("#waiting").inner_text()
    world.conn.execute(
        "insert into ingest_log (requests, received, stored, duplicates, rejected, bytes, project_id, signal,"
        " transport) values (1, 8, 8, 0, 0, 900, %s, 'traces', 'http')",
        (world.project.pk,),
    )
    tab.wait_for_selector("#waiting:has-text('Spans arrive')", timeout=10_000)


def test_an_alert_is_acknowledged_and_snoozed_in_place(tab, site):
    show(tab, site.url + site.pages["alerts"])
    tab.evaluate("window.untouched = true")
    row = tab.locator(".alert").first
    number = row.get_attribute("id")
    row.get_by_role("button", name="Acknowledge").click()
    tab.wait_for_selector(f"#{number}:has-text('acknowledged by mia')")
    row = tab.locator(f"#{number}")
    row.locator("summary", has_text="Snooze").click()
    row.get_by_role("button", name="4 hours").click()
    tab.wait_for_selector(f"#{number}:has-text('snoozed until')")
    assert tab.evaluate("window.untouched")
    assert tab.complaints == []


def test_a_rule_says_what_it_does_while_it_is_written_and_is_saved(tab, site):
    show(tab, site.url + "/p/acme/alerts/rules/new/")
    tab.get_by_label("Name").fill("Written in a browser")
    tab.get_by_label("For each").select_option("feature")
    tab.get_by_label("Over", exact=True).select_option("24h")
    tab.locator("[name=warning]").fill("0.001")
    tab.wait_for_selector("#preview:has-text('Warn when cost of any feature within 24 hours is above $0.001')")
    tab.wait_for_selector("#preview:has-text('It would have told you')")
    tab.wait_for_selector("#preview [data-figure][data-ready]")
    tab.get_by_label("Metric").select_option("error_rate")
    tab.wait_for_selector("#unit-warning:has-text('%')")
    tab.wait_for_selector("#preview:has-text('error rate of any feature')")
    tab.get_by_label("Over", exact=True).select_option("15m")
    tab.get_by_label("Metric").select_option("latency_p95")
    tab.wait_for_selector("#preview:has-text('kept by the hour')")
    tab.get_by_label("Over", exact=True).select_option("1h")
    tab.wait_for_selector("#preview:has-text('p95 latency of any feature')")
    tab.get_by_role("button", name="Save the rule").click()
    tab.wait_for_url("**/p/acme/alerts/")
    assert tab.locator("table.rules", has_text="Written in a browser").count() == 1
    assert tab.complaints == []
