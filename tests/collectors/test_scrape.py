"""Scraping real HTTP servers on loopback: targets as people list them, and endpoints that behave badly."""

import base64
import gzip
import http.server
import json
import socket
import ssl
import threading
import time
from ipaddress import ip_address, ip_network

import pytest
from django.conf import settings as django_settings

from collectors.scrape.fetch import Failed, Rules, fetch
from collectors.scrape.targets import CannotDiscover, endpoints
from costapp.core.scraping import judge_scrape
from costapp.core.targets import Allowed, Refused, read_url
from costapp.models import ScrapeTarget
from costapp.sealing import seal
from costapp.storage.scrape_targets import TargetRow
from tests.collectors.conftest import Collector, free_port
from tests.collectors.gpu_points import TEXTS

FIELD_KEY = "k" * 40
UUID = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"


class Exporter(http.server.ThreadingHTTPServer):
    """Answers GET as its table says: path -> function of the handler. Remembers the requests' headers."""

    def __init__(self, port=0):
        self.paths, self.seen = {}, []
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                exporter.seen.append((self.path, dict(self.headers)))
                exporter.paths[self.path](self)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", port), Handler)
        self.port = self.server_address[1]
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def handle_error(self, *_):
        """A client that hung up is part of these tests."""

    def text(self, path, body, status=200, **headers):
        def answer(handler):
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body if isinstance(body, bytes) else body.encode())

        self.paths[path] = answer

    def end(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def exporter():
    server = Exporter()
    yield server
    server.end()


def rules(*ports, answer_bytes=1024 * 1024, own=frozenset()):
    return Rules([Allowed(ip_network("127.0.0.1/32"), port) for port in ports], own, answer_bytes)


def row(address, **fields):
    stated = TargetRow(1, 1, "url", address, interval_s=5, timeout_s=2, auth="none", username="", seal_id="",
                       key_id="", secret=b"", labels={})  # fmt: skip
    return stated._replace(**fields)


def found(address, folder="", limit=10, **fields):
    return endpoints(row(address, **fields), folder=folder, limit=limit)


def get(address, rules, timeout_s=2.0, authorization=""):
    return fetch(found(address)[0], rules, authorization=authorization, timeout_s=timeout_s)


# --- the guarded request


def test_a_text_is_fetched_with_the_headers_of_a_scrape(exporter):
    exporter.text("/metrics?a=b", "x 1\n")
    address = f"http://localhost:{exporter.port}/metrics?a=b"
    allowed = Rules([Allowed(ip_network(net), exporter.port) for net in ("127.0.0.1/32", "::1/128")], frozenset(), 99)
    assert get(address, allowed, authorization="Bearer t") == b"x 1\n"
    headers = exporter.seen[0][1]
    assert (headers["Host"], headers["Authorization"]) == (f"localhost:{exporter.port}", "Bearer t")


def test_gzip_is_unpacked_within_its_limit(exporter):
    exporter.text("/metrics", gzip.compress(b"x 1\n"), content_encoding="gzip")
    assert get(f"http://127.0.0.1:{exporter.port}/metrics", rules(exporter.port)) == b"x 1\n"
    exporter.text("/metrics", gzip.compress(bytes(5_000_000)), content_encoding="gzip")
    with pytest.raises(Failed, match="larger than 1048576 bytes"):
        get(f"http://127.0.0.1:{exporter.port}/metrics", rules(exporter.port))


@pytest.mark.parametrize(("status", "words"), [(302, "redirect"), (401, "password or token"), (500, "It answered 500")])
def test_other_answers_are_said_in_words_and_redirects_are_not_followed(exporter, status, words):
    exporter.text("/metrics", "secret", status, location="/elsewhere")
    exporter.text("/elsewhere", "x 1\n")
    with pytest.raises(Failed, match=words) as caught:
        get(f"http://127.0.0.1:{exporter.port}/metrics", rules(exporter.port))
    assert "secret" not in str(caught.value)
    assert len(exporter.seen) == 1


def test_an_answer_that_is_too_large_is_cut_off(exporter):
    exporter.text("/metrics", bytes(2_000_000))
    with pytest.raises(Failed, match="larger than"):
        get(f"http://127.0.0.1:{exporter.port}/metrics", rules(exporter.port))


def test_an_endpoint_that_drips_is_cut_off_in_time(exporter):
    ended = threading.Event()

    def drip(handler):
        while not ended.wait(0.05):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n"[:1])

    exporter.paths["/metrics"] = drip
    began = time.monotonic()
    with pytest.raises(Failed, match=r"within 0\.5 seconds"):
        get(f"http://127.0.0.1:{exporter.port}/metrics", rules(exporter.port), timeout_s=0.5)
    assert time.monotonic() - began < 5
    ended.set()


def test_an_endpoint_that_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Failed, match="within"):
            get(f"http://127.0.0.1:{port}/metrics", rules(port), timeout_s=0.3)


def test_nobody_there_and_no_tls_are_said():
    port = free_port()
    with pytest.raises(Failed, match="Nothing answers there"):
        get(f"http://127.0.0.1:{port}/metrics", rules(port))


def test_a_server_without_tls_is_said(exporter):
    exporter.text("/metrics", "x 1\n")
    with pytest.raises(Failed, match="TLS"):
        get(f"https://127.0.0.1:{exporter.port}/metrics", rules(exporter.port))
    assert ssl.OPENSSL_VERSION


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_what_is_not_listed_is_never_called(exporter, host):
    exporter.text("/metrics", "x 1\n")
    with pytest.raises((Refused, Failed)):
        get(f"http://{host}:{exporter.port}/metrics", rules(exporter.port + 1))
    assert exporter.seen == []


def test_one_unlisted_address_closes_all():
    target = read_url("http://gpus:9400/metrics")
    allowed = [Allowed(ip_network("10.0.0.0/8"), 9400)]
    assert judge_scrape(target, ["10.1.2.3"], allowed) == ["10.1.2.3"]
    for addresses in (["10.1.2.3", "8.8.8.8"], ["169.254.169.254"], []):
        with pytest.raises(Refused):
            judge_scrape(target, addresses, allowed)


def test_costapps_own_database_is_never_called_even_when_listed():
    target = read_url("http://db:5432/")
    own = {(ip_address("10.1.2.3"), 5432)}
    with pytest.raises(Refused, match="Costapp itself"):
        judge_scrape(target, ["10.1.2.3"], [Allowed(ip_network("10.0.0.0/8"), 5432)], own)


# --- what is scraped


def test_a_file_lists_endpoints_as_prometheus_does(tmp_path):
    groups = [
        {"targets": ["10.0.0.1:9400", "10.0.0.2:9400"], "labels": {"rack": "4", "__meta_x": "no"}},
        {"targets": ["gpu-9:8443"], "labels": {"__scheme__": "https", "__metrics_path__": "/m"}},
    ]
    (tmp_path / "gpus.json").write_text(json.dumps(groups))
    (tmp_path / "gpus.yml").write_text(
        "- targets: [10.0.0.1:9400, 10.0.0.2:9400]\n  labels: {rack: 4, __meta_x: no}\n"
        "- targets: ['gpu-9:8443']\n  labels: {__scheme__: https, __metrics_path__: /m}\n"
    )
    for name in ("gpus.json", "gpus.yml"):
        one, two, three = found(name, str(tmp_path), discovery="file", labels={"node": "n"})
        assert (one.name, dict(one.labels)) == ("10.0.0.1:9400", {"rack": "4", "node": "n"})
        assert (two.name, two.target.path, two.target.scheme) == ("10.0.0.2:9400", "/metrics", "http")
        assert (three.target.scheme, three.target.path, dict(three.labels)) == ("https", "/m", {"node": "n"})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("../secret.yml", "", "must lie in the folder"), ("none.yml", None, "cannot be read"),
     ("broken.json", "[", "not JSON or YAML"), ("map.yml", "a: 1", "must be a list"),
     ("odd.yml", "- targets: x", "must be a list"), ("evil.yml", "!!python/object/apply:os.system [x]", "not JSON"),
     ("many.json", json.dumps([{"targets": [f"h{n}:1" for n in range(11)]}]), "more than COSTAPP_SCRAPE_MAX")],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_said_in_words(tmp_path, name, content, words):
    folder = tmp_path / "folder"
    folder.mkdir()
    if content is not None:
        (folder / name).resolve().write_text(content)
    with pytest.raises(CannotDiscover, match=words):
        found(name, str(folder), discovery="file")


def test_without_a_folder_no_file_is_read():
    with pytest.raises(CannotDiscover, match="COSTAPP_SCRAPE_FILES"):
        found("gpus.yml", discovery="file")


def test_every_address_of_a_name_is_an_endpoint():
    names = [endpoint.name for endpoint in found("http://localhost:9400/metrics", discovery="dns")]
    assert "127.0.0.1:9400" in names
    with pytest.raises(CannotDiscover, match="cannot be looked up"):
        found("http://no-such-host.invalid:1/metrics", discovery="dns")


# --- the whole way: a target in the database, a collector that scrapes it


@pytest.fixture
def scraping(database_url, exporter, tmp_path):
    process = Collector(
        database_url, COSTAPP_SCRAPE_ALLOW=f"127.0.0.1/32:{exporter.port}", COSTAPP_FIELD_KEYS=FIELD_KEY,
        COSTAPP_SCRAPE_FILES=str(tmp_path),
    )  # fmt: skip
    yield process
    code, log = process.stop()
    assert code == 0, log
    assert "Traceback" not in log, log


def wait_for(condition, seconds=25):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
    return result


def target(project, exporter, **fields):
    stated = {"name": "gpus", "address": f"http://127.0.0.1:{exporter.port}/metrics", "interval_s": 5, "timeout_s": 2}
    return ScrapeTarget.objects.create(project=project, **stated | fields)


def status(listed):
    listed.refresh_from_db()
    return listed if listed.last_at else None


def test_a_target_is_scraped_and_its_samples_stored(conn, project, exporter, scraping):
    exporter.text("/metrics", (TEXTS / "dcgm-kubernetes.txt").read_text())
    listed = target(project, exporter, labels={"hostname": "rack-4"})
    wait_for(lambda: conn.execute("select 1 from gpu_sample").fetchone())
    assert conn.execute(
        "select util_bp, node, target, pod from gpu_sample_full where device_id = %s", (UUID,)
    ).fetchone() == (9_512, "rack-4", f"127.0.0.1:{exporter.port}", "llama-0")  # fmt: skip
    shown = wait_for(lambda: status(listed))
    assert (shown.up, shown.down, shown.detail) == (1, 0, "")
    assert shown.samples == 25
    logged = conn.execute("select transport, key_id, sum(rejected)::int from ingest_log group by 1, 2").fetchall()
    assert logged == [("scrape", None, 0)]


def test_a_secret_opens_the_door(conn, project, exporter, scraping):
    exporter.text("/metrics", "vllm:num_requests_running 1\n")
    listed = ScrapeTarget(project=project, name="vllm", address=f"http://127.0.0.1:{exporter.port}/metrics",
                          interval_s=5, timeout_s=2, auth="basic", username="u")  # fmt: skip
    listed.key_id, listed.secret = seal([FIELD_KEY], {"secret": "pässword"}, str(listed.seal_id))
    listed.save()
    wait_for(lambda: exporter.seen)
    authorization = exporter.seen[0][1]["Authorization"]
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == "u:pässword"


def test_an_endpoint_that_is_down_is_a_gap_and_said_in_the_admin(conn, project, exporter, scraping):
    exporter.text("/metrics", "no", 503)
    listed = target(project, exporter)
    gap = wait_for(lambda: conn.execute("select kind, target from gpu_gap").fetchone())
    assert gap == (1, f"127.0.0.1:{exporter.port}")
    shown = wait_for(lambda: status(listed))
    assert (shown.up, shown.down) == (0, 1)
    assert shown.detail == f"127.0.0.1:{exporter.port}: It answered 503."


def test_a_target_off_the_list_is_refused_in_words(conn, project, exporter, scraping):
    listed = target(project, exporter, address=f"http://127.0.0.1:{exporter.port + 1}/metrics")
    shown = wait_for(lambda: status(listed))
    assert "COSTAPP_SCRAPE_ALLOW" in shown.detail


def test_a_file_that_changes_changes_what_is_scraped(conn, project, exporter, scraping, tmp_path):
    exporter.text("/metrics", "vllm:num_requests_running 1\n")
    listed = target(project, exporter, discovery="file", address="gpus.yml")
    shown = wait_for(lambda: status(listed))
    assert "gpus.yml cannot be read" in shown.detail
    (tmp_path / "gpus.yml").write_text(f"- targets: ['127.0.0.1:{exporter.port}']\n")
    listed.interval_s = 6  # a change of the target is seen at once, one of its file within half a minute
    listed.save()
    wait_for(lambda: exporter.seen)


def test_a_target_that_is_switched_off_is_left_alone(conn, project, exporter, scraping):
    exporter.text("/metrics", "vllm:num_requests_running 1\n")
    listed = target(project, exporter)
    wait_for(lambda: exporter.seen)
    ScrapeTarget.objects.filter(pk=listed.pk).update(enabled=False)
    other = target(project, exporter, name="other", address=f"http://127.0.0.1:{exporter.port}/other")
    exporter.text("/other", "x 1\n")
    wait_for(lambda: any(path == "/other" for path, _ in exporter.seen))  # the list was read again
    before = len([1 for path, _ in exporter.seen if path == "/metrics"])
    wait_for(lambda: len([1 for path, _ in exporter.seen if path == "/other"]) >= 2)
    assert len([1 for path, _ in exporter.seen if path == "/metrics"]) == before
    assert other.enabled


def test_only_one_of_two_collectors_scrapes_and_the_other_takes_over(conn, database_url, project, exporter, scraping):
    exporter.text("/metrics", "vllm:num_requests_running 1\n")
    target(project, exporter)
    wait_for(lambda: exporter.seen)
    second = Collector(database_url, COSTAPP_SCRAPE_ALLOW=f"127.0.0.1/32:{exporter.port}")
    try:
        count = len(exporter.seen)
        wait_for(lambda: len(exporter.seen) >= count + 2)
        assert second.counter("scrapes_total") == 0
        scraping.stop()
        wait_for(lambda: second.counter("scrapes_total"))
    finally:
        assert second.stop()[0] == 0
        scraping.start()


def test_the_admin_and_the_collector_read_the_same_list():
    assert django_settings.SCRAPE_ALLOW == []
