"""Where messages may go: judged by the resolved address, connected to the judged address, nothing followed."""

import datetime as dt
import http.server
import ssl
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.targets import Refused, is_public, judge, read_allowed, read_url
from costapp.services import outgoing
from costapp.services.outgoing import Unreachable
from tests.alerts.servers import http_receiver

PUBLIC = "93.184.216.34"

FORBIDDEN = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "168.63.129.16", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe", "2001:db8::1", "100::1",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_public_is_refused(address):
    with pytest.raises(Refused):
        judge(read_url("https://hooks.example.com/x"), [address])


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:2800:220:1::1", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_a_public_address_is_taken(address):
    assert judge(read_url("https://hooks.example.com/x"), [address]) == [address]


def test_one_forbidden_address_among_good_ones_refuses_them_all():
    with pytest.raises(Refused, match="not public"):
        judge(read_url("https://hooks.example.com/x"), [PUBLIC, "10.0.0.1"])
    with pytest.raises(Refused, match="no address"):
        judge(read_url("https://hooks.example.com/x"), [])


@given(st.ip_addresses(v=4, network="127.0.0.0/8") | st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_no_wrapping_makes_a_private_address_public(address):
    for text in (f"::ffff:{address}", f"64:ff9b::{address}", f"2002:{int(address) >> 16:x}:{int(address) & 65535:x}::"):
        with pytest.raises(Refused):
            judge(read_url("https://hooks.example.com/x"), [text])


def test_a_listed_network_and_port_is_taken_with_http_too_and_nothing_else_is():
    allowed = read_allowed(["10.20.0.0/16:9400", "[fd00::/8]:8080"])
    assert judge(read_url("http://gpu.internal:9400/"), ["10.20.3.4"], allowed)
    assert judge(read_url("http://gpu.internal:9400/"), ["::ffff:10.20.3.4"], allowed)
    assert judge(read_url("http://x.internal:8080/"), ["fd12::1"], allowed)
    for url, address in (("http://gpu.internal:9401/", "10.20.3.4"), ("http://gpu.internal:9400/", "10.21.3.4")):
        with pytest.raises(Refused):
            judge(read_url(url), [address], allowed)


def test_the_instances_own_servers_are_refused_even_when_listed():
    allowed = read_allowed(["10.0.0.0/8:5432"])
    with pytest.raises(Refused, match="Costapp itself"):
        judge(read_url("http://db.internal:5432/"), ["10.0.0.5"], allowed, own=[("10.0.0.5", 5432)])


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://hooks.example.com/x", "https on port 443"),
        ("https://hooks.example.com:8443/x", "https on port 443"),
        ("ftp://hooks.example.com/x", "must begin with https"),
        ("file:///etc/passwd", "must begin with https"),
        ("https:///x", "name a host"),
        ("https://me:pw@hooks.example.com/x", "user name or password"),
        ("https://hooks.example.com/x y", "space"),
        ("https://hooks.example.com/\r\nX: y", "space"),
        ("https://hooks.example.com:99999/", "not an address"),
        ("https://[::1/", "not an address"),
        ("https://hooks.example.com\\@10.0.0.1/", "space"),
        ("https://h/" + "x" * 3000, "longer"),
        ("", "must begin with https"),
    ],
)
def test_a_strange_address_is_refused_with_a_sentence(url, words):
    with pytest.raises(Refused, match=words):
        judge(read_url(url), [PUBLIC])


@pytest.mark.parametrize("entry", ["10.0.0.0/8", "10.0.0.0/8:x", "10.0.0.1/8:80", "nonsense:80", "10.0.0.0/8:0"])
def test_a_wrong_entry_of_the_allow_list_is_explained(entry):
    with pytest.raises(ValueError, match="port"):
        read_allowed([entry])


def test_reserved_and_unspecified_are_not_public():
    import ipaddress

    assert not is_public(ipaddress.ip_address("0.0.0.0"))
    assert not is_public(ipaddress.ip_address("250.0.0.1"))


# --- real connections


@pytest.fixture
def receiver(settings):
    with http_receiver() as running:
        settings.ALLOW_PRIVATE_TARGETS = [f"127.0.0.1/32:{running.port}"]
        yield running


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1", "0", "[::1]", "[::ffff:127.0.0.1]"],
)
def test_no_notation_reaches_this_machine(host, receiver, settings):
    settings.ALLOW_PRIVATE_TARGETS = []
    for scheme in ("http", "https"):
        with pytest.raises(Refused):
            outgoing.post(f"{scheme}://{host}:{receiver.port}/ok", b"{}", {})
        with pytest.raises(Refused):
            outgoing.check(f"{scheme}://{host}:{receiver.port}/ok")
    assert receiver.received == []


def test_a_listed_receiver_gets_the_body_and_its_own_name(receiver):
    answer = outgoing.post(receiver.url("ok"), b'{"a": 1}', {"X-Mine": "1"})
    assert (answer.status, answer.body) == (200, b"ok")
    [got] = receiver.received
    assert (got.body, got.headers["host"], got.headers["x-mine"]) == (b'{"a": 1}', f"127.0.0.1:{receiver.port}", "1")


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(receiver, settings, monkeypatch):
    """The look-up happens once; the connection goes to what was judged."""
    asked = []

    def rebinding(host, port):
        asked.append(host)
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    monkeypatch.setattr(outgoing, "resolve", rebinding)
    monkeypatch.setattr(outgoing, "_connection", lambda target, address, limit: pytest.fail(address))
    with pytest.raises(Refused):
        outgoing.post(f"http://rebind.example:{receiver.port}/ok", b"", {})
    assert len(asked) == 1
    connected = []
    monkeypatch.setattr(outgoing, "_connection", lambda target, address, limit: connected.append(address) or _Nothing())
    asked.clear()
    with pytest.raises(Unreachable):
        outgoing.post("https://rebind.example/ok", b"", {})
    assert (connected, len(asked)) == ([PUBLIC], 1)


class _Nothing:
    sock = None

    def connect(self):
        raise ConnectionRefusedError

    def close(self):
        """Nothing to close."""


def test_a_redirect_is_not_followed(receiver):
    assert outgoing.post(receiver.url("moved"), b"", {}).status == 302
    assert [each.path for each in receiver.received] == ["/services/T0/B0/secret-part/moved"]


def test_a_huge_answer_is_cut(receiver):
    assert len(outgoing.post(receiver.url("huge"), b"", {}).body) == outgoing.ANSWER_LIMIT


def test_an_answer_that_never_comes_is_cut_off_in_time(receiver):
    with pytest.raises(Unreachable, match="no whole answer within") as caught:
        outgoing.post(receiver.url("hold"), b"", {}, limit_s=0.4)
    assert "secret-part" not in str(caught.value)


def test_an_answer_whose_body_never_ends_is_its_status(receiver):
    began = time.monotonic()
    assert outgoing.post(receiver.url("drip"), b"", {}, limit_s=0.4).status == 200
    assert time.monotonic() - began < 5


def test_a_look_up_that_hangs_is_left_behind(monkeypatch):
    wait = threading.Event()
    monkeypatch.setattr(outgoing, "resolve", lambda host, port: wait.wait(30) and [])
    with pytest.raises(Unreachable, match="look-up"):
        outgoing.post("https://slow.example/", b"", {}, limit_s=0.2)
    wait.set()


def test_a_name_that_does_not_resolve_is_refused(monkeypatch):
    def fails(host, port):
        raise OSError("no such host")

    monkeypatch.setattr(outgoing, "resolve", fails)
    with pytest.raises(Refused, match="cannot be found"):
        outgoing.check("https://nowhere.example/")


def test_a_closed_port_is_said_in_words(settings):
    with http_receiver() as gone:
        port = gone.port
    settings.ALLOW_PRIVATE_TARGETS = [f"127.0.0.1/32:{port}"]
    with pytest.raises(Unreachable, match="does not take connections"):
        outgoing.post(f"http://127.0.0.1:{port}/", b"", {})


# --- TLS: the name is checked although the connection goes to an address


@pytest.fixture
def tls_server(tmp_path, settings, monkeypatch):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    names = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            names.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            """Quiet."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """A client that does not trust us hangs up."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.sni_callback = lambda sock, name, _: names.append(name)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    port = server.server_address[1]
    settings.ALLOW_PRIVATE_TARGETS = [f"127.0.0.1/32:{port}"]
    monkeypatch.setattr(outgoing, "resolve", lambda host, port: ["127.0.0.1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    outgoing.tls_context.cache_clear()
    yield port, names
    outgoing.tls_context.cache_clear()
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_name_is_said_and_checked_over_tls(tls_server):
    port, names = tls_server
    assert outgoing.post(f"https://hooks.example.test:{port}/x", b"", {}).status == 200
    assert names == ["hooks.example.test", f"hooks.example.test:{port}"]


def test_a_certificate_for_another_name_is_refused(tls_server):
    port, names = tls_server
    with pytest.raises(Unreachable, match="certificate"):
        outgoing.post(f"https://other.example.test:{port}/x", b"", {})
    assert names == ["other.example.test"]
