"""Limits over time and requests: memory, queue, rates, wrong keys. Each refuses with words and recovers."""

import pytest

from benchmarks import traces as generated
from collectors import limits
from collectors.auth import Failures, key_from_headers
from collectors.counters import Counters
from collectors.errors import Refusal
from tests.collectors.conftest import Collector, json_span, stored_count, traces

PROTOBUF = "application/x-protobuf"


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(limits.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_memory_is_refused_above_its_limit_and_given_back_afterwards():
    memory = limits.Memory(1000, Counters())
    with memory.hold() as first:
        first.add(900)
        with pytest.raises(Refusal) as caught, memory.hold() as second:
            second.add(200)
        assert (caught.value.kind.http_status, caught.value.reason) == (503, "memory_full")
        assert memory.used == 900
    assert memory.used == 0


def test_one_request_alone_may_take_more_than_the_memory_limit():
    memory = limits.Memory(1000, Counters())
    with memory.hold() as hold:
        hold.add(5000)
    assert memory.used == 0


def test_a_key_over_its_rate_is_told_when_to_come_back_and_may_then(clock):
    rate = limits.Rate(100, "spans")
    rate.check(1)
    rate.charge(1, 1500)  # ten seconds' worth are 1,000
    with pytest.raises(Refusal) as caught:
        rate.check(1)
    assert (caught.value.kind.http_status, caught.value.retry_after) == (429, 6)
    rate.check(2)  # another key is not concerned
    clock.now += caught.value.retry_after
    rate.check(1)


def test_a_rate_of_zero_is_no_limit():
    rate = limits.Rate(0, "spans")
    rate.charge(1, 10**9)
    rate.check(1)


def test_wrong_keys_are_limited_per_address():
    failures = Failures(2)
    for _ in range(2):
        assert not failures.exceeded("1.2.3.4")
        failures.add("1.2.3.4")
    assert failures.exceeded("1.2.3.4")
    assert not failures.exceeded("5.6.7.8")


@pytest.mark.parametrize("headers", [
    {}, {"authorization": "Bearer"}, {"authorization": "Basic !!!"}, {"authorization": "Basic /w=="},
    {"authorization": "x"},
])  # fmt: skip
def test_headers_without_a_key_yield_none_or_an_empty_one(headers):
    assert not key_from_headers(headers.get)


@pytest.fixture
def narrow(database_url):
    process = Collector(
        database_url, COSTAPP_MAX_QUEUE_SPANS="1", COSTAPP_KEY_SPANS_PER_SECOND="10",
        COSTAPP_AUTH_FAILURES_PER_MINUTE="3",
    )  # fmt: skip
    yield process
    process.kill()


def test_limits_are_answered_429_with_retry_after_and_what_was_accepted_is_stored(narrow, key, conn):
    request = next(generated.requests(spans=128, seed=2)).SerializeToString()
    assert narrow.post(key, request, content_type=PROTOBUF).status == 200
    answer = narrow.post(key, traces(json_span(1)))
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert stored_count(conn) == 128
    assert [narrow.post("wrong", {}).status for _ in range(5)] == [401, 401, 401, 429, 429]
    assert narrow.counter('rejected_total{reason="rate_limited"}') == 1
